-- does:    gives a reservation back: its count falls by one, never below 0; idempotent. A lapsed
--          reservation gives nothing back (fault B21).
-- KEYS:    1 capacity hash; 2 reservation of this (job, attempt, node)
-- ARGV:    none
-- returns: 1 if the reservation was alive, else 0
-- atomic with respect to: try_reserve, commit, dec_running, heartbeat_reset, heartbeat_keep
local now = now_us()
local held = redis.call('GET', KEYS[2])
redis.call('DEL', KEYS[2])
if not held or tonumber(held) < now then
  return 0
end
local cap = redis.call('HMGET', KEYS[1], 'reserved', 'expires_us')
local alive = not cap[2] or tonumber(cap[2]) >= now
if alive and tonumber(cap[1] or '0') > 0 then
  redis.call('HINCRBY', KEYS[1], 'reserved', '-1')
end
return 1
