-- does:    says that an instance lives, and tells it who has given no sign for too long. Who has
--          been gone for ten minutes is forgotten.
-- KEYS:    1 zset of instances, scored by when their sign expires
-- ARGV:    1 instance; 2 ttl_ms
-- returns: the other instances whose sign has expired, sorted by their bytes
-- atomic with respect to: presence
local now = now_us()
local forgotten = now - 600 * 1000000
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2]) * 1000), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', forgotten))
local members = redis.call('ZRANGE', KEYS[1], '0', '-1')
local gone = {}
for i = 1, #members do
  local expiry = redis.call('ZSCORE', KEYS[1], members[i])
  if tonumber(expiry) < now and members[i] ~= ARGV[1] then
    gone[#gone + 1] = members[i]
  end
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
return gone
