-- does:    stores what a node reports of itself; leases, and in the classic hash `reserved`, stay.
-- KEYS:    1 node hash; and for the classic scripts 2 capacity hash; 3 meta hash
-- ARGV:    1 slots; 2 running; 3 health; 4 ttl_ms, after which the node is not ready; 5 instance
--          that the node is connected to; 6 since when, by the instance's own clock
-- returns: 1
-- atomic with respect to: claim and node_gone of the node; try_reserve, release, commit,
--          dec_running, heartbeat_reset of the node
local now = now_us()
local expires = string.format('%.0f', now + tonumber(ARGV[4]) * 1000)

local function put(key, ...)
  local old = redis.call('HGET', key, 'expires_us')
  if old and tonumber(old) < now then
    redis.call('DEL', key)
  end
  redis.call('HSET', key, 'expires_us', expires, ...)
  redis.call('PEXPIRE', key, ARGV[4])
end

put(KEYS[1], 'slots', ARGV[1], 'health', ARGV[3], 'last_seen_us', string.format('%.0f', now),
  'home', ARGV[5], 'since_us', ARGV[6])
if KEYS[2] then
  put(KEYS[2], 'max', ARGV[1], 'running', ARGV[2])
  put(KEYS[3], 'health', ARGV[3])
end
return 1
