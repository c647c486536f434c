-- does:    drops all leases of a node and marks it offline, if it is known; not if the node is
--          connected to another instance by now, or once more to this one: the word came late.
-- KEYS:    1 lease zset of the node; 2 node hash; 3 ownership hash of the node
-- ARGV:    1 instance; 2 since when the node was connected to it, by its own clock
-- returns: the members 'job:attempt' that it held, lapsed ones too, sorted by their bytes
--          | 0 the node is another living instance's, or has come back
-- atomic with respect to: claim, complete, renew, release_lease, heartbeat_keep, own of the node
local owned = redis.call('HMGET', KEYS[3], 'expires_us', 'owner')
if owned[1] and tonumber(owned[1]) >= now_us() and owned[2] ~= ARGV[1] then
  return 0
end
local last = redis.call('HMGET', KEYS[2], 'home', 'since_us')
if last[1] == ARGV[1] and tonumber(last[2]) > tonumber(ARGV[2]) then
  return 0
end
local members = redis.call('ZRANGE', KEYS[1], '0', '-1')
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'health', 'offline')
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
table.sort(members, before)
return members
