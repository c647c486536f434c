-- does:    says that an instance lives and which version of the protocol it speaks, and tells it who
--          has given no sign for too long, and what the others speak. Who has been gone for ten
--          minutes is forgotten.
-- KEYS:    1 zset of instances, scored by when their sign expires; 2 hash of their versions
-- ARGV:    1 instance; 2 ttl_ms; 3 version
-- returns: {the other instances whose sign has expired, sorted by their bytes;
--          every instance that is not forgotten, each followed by its version, 1 if it says none,
--          and by its sign: another one whenever it has given one;
--          1 if an earlier sign of this instance is known, else 0}
-- atomic with respect to: presence
local now = now_us()
local forgotten = string.format('(%.0f', now - 600 * 1000000)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2]) * 1000), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', forgotten)
for i = 1, #old do
  redis.call('HDEL', KEYS[2], old[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', forgotten)
local scored = redis.call('ZRANGE', KEYS[1], '0', '-1', 'WITHSCORES')
local gone, signs, names = {}, {}, {}
for i = 1, #scored, 2 do
  if tonumber(scored[i + 1]) < now and scored[i] ~= ARGV[1] then
    gone[#gone + 1] = scored[i]
  end
  names[#names + 1] = scored[i]
end
local versions = redis.call('HMGET', KEYS[2], unpack(names))
for i = 1, #names do
  signs[3 * i - 2], signs[3 * i - 1], signs[3 * i] = names[i], versions[i] or '1', scored[2 * i]
end

-- A server's own string order follows its locale, so bytes are compared here.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end
table.sort(gone, before)
return {gone, signs, known and 1 or 0}
