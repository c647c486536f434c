-- does:    turns a reservation into a running job, as the node's acknowledgement does: reserved
--          falls by one, never below 0, and running rises by one.
-- KEYS:    1 capacity hash; 2 reservation of this (job, attempt, node)
-- ARGV:    none
-- returns: 1 if the reservation was alive, else 0
-- atomic with respect to: try_reserve, release, dec_running, heartbeat_reset, heartbeat_keep
local now = now_us()
local held = redis.call('GET', KEYS[2])
redis.call('DEL', KEYS[2])
if not held or tonumber(held) < now then
  return 0
end
local cap = redis.call('HMGET', KEYS[1], 'max', 'reserved', 'expires_us')
if not cap[1] or (cap[3] and tonumber(cap[3]) < now) then
  return 1
end
if tonumber(cap[2] or '0') > 0 then
  redis.call('HINCRBY', KEYS[1], 'reserved', '-1')
end
redis.call('HINCRBY', KEYS[1], 'running', '1')
return 1
