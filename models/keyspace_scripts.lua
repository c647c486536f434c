-- What stands between Python and the key space of keyspace.lua: scripts, calls and replies.
--
-- Rules: a script sees KEYS, ARGV, now_us and the names in GLOBALS, nothing else. A reply crosses
-- to Python as a kind and plain values, so that no table has to be boxed.
-- It does not know what a command does.

local space = ...
local C, LEAST, text, fail, at = space.commands, space.least, space.text, space.fail, space.at
local MAX_UNPACKED = 4000      -- a C stack holds some 8,000 values
local type, select, unpack, floor = type, select, unpack, math.floor

local function call(op, ...)
  local handler = C[op]
  if not handler then
    op = type(op) == 'string' and op:upper() or tostring(op)
    handler = C[op]
    if not handler then fail("ERR unknown command '" .. op .. "'") end
  end
  local w, n = {...}, select('#', ...)
  for i = 1, n do
    if type(w[i]) ~= 'string' then
      if type(w[i]) ~= 'number' then
        fail('ERR Lua redis lib command arguments must be strings or integers')
      end
      w[i] = text(w[i])
    end
  end
  if n < LEAST[op] then
    fail("ERR wrong number of arguments for '" .. op:lower() .. "' command")
  end
  return handler(w, n)
end

local function pcalled(...)
  local done, reply = pcall(call, ...)
  if done then return reply end
  return type(reply) == 'table' and reply or {err = tostring(reply)}
end

local function strict(message)
  return function(_, name)
    error(message .. " '" .. tostring(name) .. "'", 2)
  end
end

-- What a script sees: no pairs, next, random, os or io, so that nothing it does can depend on an
-- address, a hash or the host; and it can neither write a global nor read an unknown one.
local GLOBALS = {
  assert = assert, error = error, ipairs = ipairs, pcall = pcall, select = select,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack,
  string = {byte = string.byte, char = string.char, find = string.find,
    format = string.format, gsub = string.gsub, len = string.len, lower = string.lower,
    match = string.match, rep = string.rep, sub = string.sub, upper = string.upper},
  table = {concat = table.concat, insert = table.insert, remove = table.remove,
    sort = table.sort},
  math = {abs = math.abs, ceil = math.ceil, floor = math.floor, huge = math.huge,
    max = math.max, min = math.min},
  redis = {call = call, pcall = pcalled,
    error_reply = function(message) return {err = message} end,
    status_reply = function(message) return {ok = message} end},
}
local unknown = strict('Script attempted to access nonexistent global variable')
for _, names in ipairs({GLOBALS, GLOBALS.string, GLOBALS.table, GLOBALS.math, GLOBALS.redis}) do
  setmetatable(names, {__index = unknown})
end
local SANDBOX = setmetatable({}, {__index = GLOBALS,
  __newindex = strict('Script attempted to write the global variable'), __metatable = false})

local scripts = {}

local function load_script(name, source)
  local chunk, problem = loadstring('local KEYS, ARGV, now_us = ...; ' .. source, '=' .. name)
  if not chunk then return problem end
  scripts[name] = setfenv(chunk, SANDBOX)
  return nil
end

-- Replies cross to Python as a kind and plain values, so that no table is boxed.
local SCALAR, NIL, FLAT, NESTED, BIG, ERROR = 0, 1, 2, 3, 4, 5

local function scalar(value)
  local kind = type(value)
  if kind == 'number' then
    return value >= 0 and floor(value) or math.ceil(value)
  elseif kind == 'boolean' then
    return value and 1 or nil
  elseif kind == 'string' then
    return value
  end
  fail('ERR a script cannot return a ' .. kind)
end

-- A nested list is written into a stream as `true`, its length, its elements.
local function flatten(list, out, at)
  if list.ok or list.err then
    out[at + 1] = list.ok or fail(list.err)
    return at + 1
  end
  local size = 0
  while list[size + 1] ~= nil do size = size + 1 end
  out[at + 1], out[at + 2] = true, size
  at = at + 2
  for i = 1, size do
    local item = list[i]
    if type(item) == 'table' then
      at = flatten(item, out, at)
    else
      at = at + 1
      out[at] = scalar(item)
    end
  end
  return at
end

local function answer(reply)
  if type(reply) ~= 'table' then
    if not reply then return NIL end
    return SCALAR, scalar(reply)
  end
  if reply.err then return ERROR, reply.err end
  if reply.ok then return SCALAR, reply.ok end
  local out, size = {}, 0
  while size < MAX_UNPACKED do
    local item = reply[size + 1]
    if item == nil then return FLAT, unpack(out, 1, size) end
    if type(item) == 'table' then break end
    size = size + 1
    out[size] = scalar(item)
  end
  out = {}
  size = flatten(reply, out, 0)
  if size > MAX_UNPACKED then return BIG, size, out end
  return NESTED, unpack(out, 1, size)
end

local function guarded(done, ...)
  if done then return ... end
  local problem = ...
  return ERROR, type(problem) == 'table' and problem.err or tostring(problem)
end

local function run_body(name, keys, ...)
  local script = scripts[name]
  if not script then return ERROR, nil end
  local K, A, words = {}, {}, {...}
  for i = 1, keys do K[i] = words[i] end
  for i = keys + 1, select('#', ...) do A[i - keys] = words[i] end
  return answer(script(K, A, space.clock))
end

local function run(time_us, ...)
  at(time_us)
  return guarded(pcall(run_body, ...))
end

local function command_body(...)
  return answer(call(...))
end

local function execute(time_us, ...)
  at(time_us)
  return guarded(pcall(command_body, ...))
end

local function dump()
  return answer(space.rows())
end

return run, execute, load_script, space.sweep, dump, space.clear
