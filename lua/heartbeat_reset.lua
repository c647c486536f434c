-- does:    stores what a node reports of itself as the reference does: `reserved` is set to 0, so
--          every live reservation is forgotten (fault B4, over-admission).
-- KEYS:    1 capacity hash; 2 meta hash
-- ARGV:    1 max; 2 running; 3 health; 4 ttl_ms
-- returns: 1
-- atomic with respect to: try_reserve, release, commit, dec_running, heartbeat_keep of the node
local expires = string.format('%.0f', now_us() + tonumber(ARGV[4]) * 1000)
redis.call('HMSET', KEYS[1], 'max', ARGV[1], 'running', ARGV[2], 'reserved', '0',
  'expires_us', expires)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('HSET', KEYS[2], 'health', ARGV[3], 'expires_us', expires)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
