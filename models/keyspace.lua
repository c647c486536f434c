-- A Redis key space in Lua tables, for simsched.models.keyspace: the commands that the scripts
-- and the core use, with Redis' own answers, number formats and errors.
--
-- Rules: time is injected, never read. A key is expired when now > its expiry, in whole
-- milliseconds, and goes when it is next touched or swept. Nothing depends on the order of
-- pairs(): what is enumerated is sorted by bytes first. What Redis leaves open (the order of
-- SMEMBERS and HGETALL) is sorted here.
-- It does not know: databases, eviction, RESP3, MAXLEN's "~" (trims exactly), options not named.
--
-- An entry is a string, or {type, f, n, sorted}: f maps fields (hash), members (set) or members
-- to scores (zset); n counts them; sorted caches their order. A zset keeps its members in `order`
-- by (score, member), a stream its records in `order` by id.

-- The interpreter alone: with its compiler on, LuaJIT takes ten times as long over these short,
-- branching scripts.
jit.off()
-- Calls leave little that lives and much that does not: collect at four times what lives.
collectgarbage('setpause', 400)
local new_table = require('table.new')

local D, X = {}, {}            -- key -> entry; key -> expiry in ms
local heap, queued = {}, {}    -- expiries to sweep: a binary heap of {ms, key}; key -> earliest
local now_us, now_ms = 0, 0
local MAX_EXACT = 9007199254740992
local OK = {ok = 'OK'}

local type, tonumber, unpack, pairs = type, tonumber, unpack, pairs
local floor, format, find, match = math.floor, string.format, string.find, string.match
local insert, remove, sort = table.insert, table.remove, table.sort

local function fail(message)
  error({err = message}, 0)
end

local function syntax()
  fail('ERR syntax error')
end

-- Shortest text that reads back as the same number, as Redis prints doubles.
local function text(number)
  if number == floor(number) and number > -MAX_EXACT and number < MAX_EXACT then
    return format('%.0f', number)
  end
  if number == math.huge then return 'inf' end
  if number == -math.huge then return '-inf' end
  for digits = 15, 16 do
    local short = format('%.' .. digits .. 'g', number)
    if tonumber(short) == number then return short end
  end
  return format('%.17g', number)
end

local function integer(word)
  local number = match(word, '^%-?%d+$') and tonumber(word)
  if not number or number > MAX_EXACT or number < -MAX_EXACT then
    fail('ERR value is not an integer or out of range')
  end
  return number
end

local SPECIAL = {['inf'] = math.huge, ['+inf'] = math.huge, ['-inf'] = -math.huge}

local function float(word, message)
  local number = SPECIAL[word] or (match(word, '^[%d%.eE+-]+$') and tonumber(word))
  if not number then fail(message or 'ERR value is not a valid float') end
  return number
end

-- Keys and expiry ---------------------------------------------------------------------------

local function drop(key)
  D[key] = nil
  X[key] = nil
end

local function live(key)
  local expiry = X[key]
  if expiry and now_ms > expiry then drop(key) end
  return D[key]
end

local function push(ms, key)
  local i = #heap + 1
  while i > 1 do
    local parent = floor(i / 2)
    if heap[parent][1] <= ms then break end
    heap[i] = heap[parent]
    i = parent
  end
  heap[i] = {ms, key}
end

local function pop()
  local top, n = heap[1], #heap
  local last = heap[n]
  heap[n] = nil
  n = n - 1
  local i = 1
  while i * 2 <= n do
    local child = i * 2
    if child < n and heap[child + 1][1] < heap[child][1] then child = child + 1 end
    if heap[child][1] >= last[1] then break end
    heap[i] = heap[child]
    i = child
  end
  if n > 0 then heap[i] = last end
  return top[1], top[2]
end

local function expire_at(key, ms)
  X[key] = ms
  local earliest = queued[key]
  if not earliest or ms < earliest then
    queued[key] = ms
    push(ms, key)
  end
end

-- Looks at no more than `limit` due expiries; returns how many keys it removed.
local function sweep(time_us, limit)
  now_us, now_ms = time_us, floor(time_us / 1000)
  local removed = 0
  while limit > 0 and heap[1] and heap[1][1] < now_ms do
    limit = limit - 1
    local ms, key = pop()
    if queued[key] == ms then
      queued[key] = nil
      local expiry = X[key]
      if expiry and expiry < now_ms then
        drop(key)
        removed = removed + 1
      elseif expiry then
        expire_at(key, expiry)
      end
    end
  end
  return removed
end

local function typed(key, kind)
  local entry = live(key)
  if entry == nil then return nil end
  if (type(entry) == 'string' and 'string' or entry.type) ~= kind then
    fail('WRONGTYPE Operation against a key holding the wrong kind of value')
  end
  return entry
end

-- The entry of a key, made if missing with room for `size` fields.
local function made(key, kind, size)
  local entry = typed(key, kind)
  if not entry then
    entry = {type = kind, f = new_table(0, size or 1), n = 0,
      order = (kind == 'zset' or kind == 'stream') and {} or nil}
    D[key] = entry
  end
  return entry
end

local function emptied(key, entry)
  if entry.n == 0 then drop(key) end
end

local function sorted(entry)
  local names = entry.sorted
  if not names then
    names = {}
    for name in pairs(entry.f) do names[#names + 1] = name end
    sort(names)
    entry.sorted = names
  end
  return names
end

local function put(entry, field, value)
  if entry.f[field] == nil then
    entry.n = entry.n + 1
    entry.sorted = nil
    entry.f[field] = value
    return 1
  end
  entry.f[field] = value
  return 0
end

local function take(entry, field)
  if entry.f[field] == nil then return 0 end
  entry.f[field] = nil
  entry.n = entry.n - 1
  entry.sorted = nil
  return 1
end

-- Commands: C.NAME(words, count), words[1] is the key; LEAST holds the fewest words ------------

local C, LEAST = {}, {}

local function command(name, least, handler)
  C[name] = handler
  LEAST[name] = least
end

command('TIME', 0, function()
  local seconds = floor(now_us / 1000000)
  return {text(seconds), text(now_us - seconds * 1000000)}
end)

command('GET', 1, function(w)
  return typed(w[1], 'string') or false
end)

local function expiry_ms(word, unit, name)
  local amount = integer(word)
  if amount <= 0 then fail("ERR invalid expire time in '" .. name .. "' command") end
  return now_ms + amount * unit
end

command('SET', 2, function(w, n)
  local key, expiry, keep, only = w[1], nil, false, nil
  local i = 3
  while i <= n do
    local option = w[i]:upper()
    if option == 'NX' or option == 'XX' then
      if only and only ~= option then syntax() end
      only = option
    elseif option == 'KEEPTTL' then
      keep = true
    elseif (option == 'PX' or option == 'EX') and i < n and not expiry then
      i = i + 1
      expiry = expiry_ms(w[i], option == 'EX' and 1000 or 1, 'set')
    else
      syntax()
    end
    i = i + 1
  end
  if keep and expiry then syntax() end
  local there = live(key) ~= nil
  if (only == 'NX' and there) or (only == 'XX' and not there) then return false end
  D[key] = w[2]
  if expiry then expire_at(key, expiry) elseif not keep then X[key] = nil end
  return OK
end)

command('DEL', 1, function(w, n)
  local count = 0
  for i = 1, n do
    if live(w[i]) ~= nil then
      drop(w[i])
      count = count + 1
    end
  end
  return count
end)

command('EXISTS', 1, function(w, n)
  local count = 0
  for i = 1, n do
    if live(w[i]) ~= nil then count = count + 1 end
  end
  return count
end)

local function added(old, amount)
  local sum = integer(old) + amount
  if sum > MAX_EXACT or sum < -MAX_EXACT then
    fail('ERR increment or decrement would overflow')
  end
  return sum
end

command('INCRBY', 2, function(w)
  local sum = added(typed(w[1], 'string') or '0', integer(w[2]))
  D[w[1]] = text(sum)
  return sum
end)

command('INCR', 1, function(w)
  return C.INCRBY({w[1], '1'})
end)

local function expire(unit)
  return function(w, n)
    local amount = integer(w[2])
    if n > 2 then fail('ERR Unsupported option ' .. w[3]) end
    if live(w[1]) == nil then return 0 end
    if amount <= 0 then drop(w[1]) else expire_at(w[1], now_ms + amount * unit) end
    return 1
  end
end

command('PEXPIRE', 2, expire(1))
command('EXPIRE', 2, expire(1000))

command('PTTL', 1, function(w)
  if live(w[1]) == nil then return -2 end
  return X[w[1]] and X[w[1]] - now_ms or -1
end)

-- Hashes and sets ----------------------------------------------------------------------------

command('HGET', 2, function(w)
  local entry = typed(w[1], 'hash')
  return entry and entry.f[w[2]] or false
end)

command('HSET', 3, function(w, n)
  if n % 2 == 0 then fail("ERR wrong number of arguments for 'hset' command") end
  local entry, count = made(w[1], 'hash', (n - 1) / 2), 0
  for i = 2, n, 2 do count = count + put(entry, w[i], w[i + 1]) end
  return count
end)

command('HMSET', 3, function(w, n)
  if n % 2 == 0 then fail("ERR wrong number of arguments for 'hmset' command") end
  C.HSET(w, n)
  return OK
end)

command('HMGET', 2, function(w, n)
  local entry, values = typed(w[1], 'hash'), {}
  for i = 2, n do values[i - 1] = entry and entry.f[w[i]] or false end
  return values
end)

command('HGETALL', 1, function(w)
  local entry, values = typed(w[1], 'hash'), {}
  if not entry then return values end
  for i, field in ipairs(sorted(entry)) do
    values[2 * i - 1], values[2 * i] = field, entry.f[field]
  end
  return values
end)

command('HINCRBY', 3, function(w)
  local amount = integer(w[3])
  local entry = typed(w[1], 'hash')
  local old = entry and entry.f[w[2]] or '0'
  if not match(old, '^%-?%d+$') then fail('ERR hash value is not an integer') end
  local sum = added(old, amount)
  put(made(w[1], 'hash'), w[2], text(sum))
  return sum
end)

local function taker(kind)
  return function(w, n)
    local entry, count = typed(w[1], kind), 0
    if not entry then return 0 end
    for i = 2, n do count = count + take(entry, w[i]) end
    emptied(w[1], entry)
    return count
  end
end

local function contains(kind)
  return function(w)
    local entry = typed(w[1], kind)
    return entry and entry.f[w[2]] ~= nil and 1 or 0
  end
end

local function counter(kind)
  return function(w)
    local entry = typed(w[1], kind)
    return entry and entry.n or 0
  end
end

command('HDEL', 2, taker('hash'))
command('HEXISTS', 2, contains('hash'))
command('SREM', 2, taker('set'))
command('SISMEMBER', 2, contains('set'))
command('SCARD', 1, counter('set'))
command('ZCARD', 1, counter('zset'))
command('XLEN', 1, counter('stream'))

command('SADD', 2, function(w, n)
  local entry, count = made(w[1], 'set', n - 1), 0
  for i = 2, n do count = count + put(entry, w[i], true) end
  return count
end)

command('SMEMBERS', 1, function(w)
  local entry, members = typed(w[1], 'set'), {}
  if not entry then return members end
  for i, member in ipairs(sorted(entry)) do members[i] = member end
  return members
end)

-- Sorted sets --------------------------------------------------------------------------------

-- First place in `order` whose (score, member) is not before (score, member).
local function place(entry, score, member)
  local order, scores = entry.order, entry.f
  local low, high = 1, #order + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local other = order[middle]
    local s = scores[other]
    if s < score or (s == score and other < member) then low = middle + 1 else high = middle end
  end
  return low
end

local function unrank(entry, member)
  local score = entry.f[member]
  if score == nil then return 0 end
  remove(entry.order, place(entry, score, member))
  return take(entry, member)
end

command('ZADD', 3, function(w, n)
  if n % 2 == 0 then syntax() end
  local scores = {}
  for i = 2, n, 2 do scores[i] = float(w[i]) end
  local entry, count = made(w[1], 'zset'), 0
  for i = 2, n, 2 do
    local score, member = scores[i], w[i + 1]
    local old = entry.f[member]
    if old ~= score then
      if old ~= nil then remove(entry.order, place(entry, old, member)) end
      insert(entry.order, place(entry, score, member), member)
      count = count + put(entry, member, score)
    end
  end
  return count
end)

command('ZREM', 2, function(w, n)
  local entry, count = typed(w[1], 'zset'), 0
  if not entry then return 0 end
  for i = 2, n do count = count + unrank(entry, w[i]) end
  emptied(w[1], entry)
  return count
end)

command('ZSCORE', 2, function(w)
  local entry = typed(w[1], 'zset')
  local score = entry and entry.f[w[2]]
  return score and text(score) or false
end)

-- First place whose score is at or above the bound (above it, if `beyond`).
local function edge(entry, bound, beyond)
  local order, scores = entry.order, entry.f
  local low, high = 1, #order + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local s = scores[order[middle]]
    if s < bound or (beyond and s == bound) then low = middle + 1 else high = middle end
  end
  return low
end

local NOTHING = {f = {}, n = 0, order = {}}

local function bound(word)
  local open = find(word, '^%(') ~= nil
  return float(open and word:sub(2) or word, 'ERR min or max is not a float'), open
end

-- The zset of words[1] and its places [first, last] between the scores words[2] and words[3].
local function span(w)
  local least, above = bound(w[2])
  local most, below = bound(w[3])
  local entry = typed(w[1], 'zset') or NOTHING
  return entry, edge(entry, least, above), edge(entry, most, not below) - 1
end

local function listed(entry, first, last, with_scores)
  local out = {}
  for i = first, last do
    local member = entry.order[i]
    out[#out + 1] = member
    if with_scores then out[#out + 1] = text(entry.f[member]) end
  end
  return out
end

command('ZCOUNT', 3, function(w)
  local _, first, last = span(w)
  return last >= first and last - first + 1 or 0
end)

command('ZRANGEBYSCORE', 3, function(w, n)
  local entry, first, last = span(w)
  local with_scores, i = false, 4
  while i <= n do
    local option = w[i]:upper()
    if option == 'WITHSCORES' then
      with_scores = true
    elseif option == 'LIMIT' and i + 2 <= n then
      local offset, count = integer(w[i + 1]), integer(w[i + 2])
      first = offset < 0 and last + 1 or first + offset
      if count >= 0 then last = math.min(last, first + count - 1) end
      i = i + 2
    else
      syntax()
    end
    i = i + 1
  end
  return listed(entry, first, last, with_scores)
end)

-- Places of two ranks that may count from the end.
local function ranks(start, stop, size)
  start, stop = integer(start), integer(stop)
  if start < 0 then start = math.max(start + size, 0) end
  if stop < 0 then stop = stop + size end
  return start + 1, math.min(stop, size - 1) + 1
end

command('ZRANGE', 3, function(w, n)
  if n > 4 or (n == 4 and w[4]:upper() ~= 'WITHSCORES') then syntax() end
  local entry = typed(w[1], 'zset') or NOTHING
  local first, last = ranks(w[2], w[3], entry.n)
  return listed(entry, first, last, n == 4)
end)

command('ZREMRANGEBYSCORE', 3, function(w)
  local entry, first, last = span(w)
  local count, order = last - first + 1, entry.order
  if count <= 0 then return 0 end
  for i = first, last do take(entry, order[i]) end
  for i = first, #order do order[i] = order[i + count] end
  emptied(w[1], entry)
  return count
end)

-- Streams ------------------------------------------------------------------------------------

local function stream_id(word, missing)
  local ms, seq = match(word, '^(%d+)%-(%d+)$')
  if ms then return tonumber(ms), tonumber(seq) end
  if not match(word, '^%d+$') then
    fail('ERR Invalid stream ID specified as stream command argument')
  end
  return tonumber(word), missing
end

local function id_text(record)
  return text(record.ms) .. '-' .. text(record.seq)
end

-- First place in a stream at or after an id.
local function position(order, ms, seq)
  local low, high = 1, #order + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local r = order[middle]
    if r.ms < ms or (r.ms == ms and r.seq < seq) then low = middle + 1 else high = middle end
  end
  return low
end

local function next_id(entry, word)
  local last_ms, last_seq = entry.ms or 0, entry.seq or 0
  if word == '*' then
    if now_ms > last_ms then return now_ms, 0 end
    return last_ms, last_seq + 1
  end
  local ms, seq = stream_id(word, 0)
  if ms == 0 and seq == 0 then fail('ERR The ID specified in XADD must be greater than 0-0') end
  if ms < last_ms or (ms == last_ms and seq <= last_seq) then
    fail('ERR The ID specified in XADD is equal or smaller than the target stream top item')
  end
  return ms, seq
end

command('XADD', 4, function(w, n)
  local i, most = 2, nil
  if w[2]:upper() == 'MAXLEN' then
    i = (w[3] == '~' or w[3] == '=') and 5 or 4
    most = integer(w[i - 1])
  end
  if n - i < 2 or (n - i) % 2 ~= 0 then
    fail("ERR wrong number of arguments for 'xadd' command")
  end
  local ms, seq = next_id(typed(w[1], 'stream') or NOTHING, w[i])
  local entry = made(w[1], 'stream')
  local record = {ms = ms, seq = seq, fields = {unpack(w, i + 1, n)}}
  entry.ms, entry.seq = ms, seq
  entry.order[#entry.order + 1] = record
  while most and #entry.order > most do remove(entry.order, 1) end
  entry.n = #entry.order
  return id_text(record)
end)

command('XRANGE', 3, function(w, n)
  local entry, out = typed(w[1], 'stream') or NOTHING, {}
  local first, last = 1, #entry.order
  if w[2] ~= '-' then first = position(entry.order, stream_id(w[2], 0)) end
  if w[3] ~= '+' then
    local ms, seq = stream_id(w[3], math.huge)
    last = position(entry.order, ms, seq + 1) - 1
  end
  if n == 5 and w[4]:upper() == 'COUNT' then
    last = math.min(last, first + integer(w[5]) - 1)
  elseif n > 3 then
    syntax()
  end
  for i = first, last do
    local record = entry.order[i]
    out[#out + 1] = {id_text(record), record.fields}
  end
  return out
end)

command('XDEL', 2, function(w, n)
  local entry, count = typed(w[1], 'stream') or NOTHING, 0
  for i = 2, n do
    local ms, seq = stream_id(w[i], 0)
    local at = position(entry.order, ms, seq)
    local record = entry.order[at]
    if record and record.ms == ms and record.seq == seq then
      remove(entry.order, at)
      count = count + 1
    end
  end
  if count > 0 then entry.n = #entry.order end
  return count
end)

-- The door to keyspace_scripts.lua -----------------------------------------------------------

local function at(time_us)
  now_us, now_ms = time_us, floor(time_us / 1000)
end

local function clock()
  return now_us
end

local CONTENT = {
  hash = function(key) return C.HGETALL({key}) end,
  set = function(key) return C.SMEMBERS({key}) end,
  zset = function(key) return C.ZRANGE({key, '0', '-1', 'WITHSCORES'}, 4) end,
  stream = function(key) return C.XRANGE({key, '-', '+'}, 3) end,
}

-- Every living key, sorted: {key, type, expiry in ms or false, content}.
local function rows()
  local keys, out = {}, {}
  for key in pairs(D) do keys[#keys + 1] = key end
  sort(keys)
  for _, key in ipairs(keys) do
    local entry = live(key)
    if type(entry) == 'string' then
      out[#out + 1] = {key, 'string', X[key] or false, entry}
    elseif entry then
      out[#out + 1] = {key, entry.type, X[key] or false, CONTENT[entry.type](key)}
    end
  end
  return out
end

local function clear()
  D, X, heap, queued = {}, {}, {}, {}
  at(0)
end

return {commands = C, least = LEAST, at = at, clock = clock, sweep = sweep, rows = rows,
  text = text, fail = fail, clear = clear}
