-- does:    counts one running job less on a node, never below 0. It does not know whose: for a
--          job that was never acknowledged it takes another job's share, as in the reference.
-- KEYS:    1 capacity hash
-- ARGV:    none
-- returns: how many are counted as running now
-- atomic with respect to: try_reserve, release, commit, heartbeat_reset, heartbeat_keep
local cap = redis.call('HMGET', KEYS[1], 'running', 'expires_us')
local running = tonumber(cap[1] or '0') or 0
if running < 1 or (cap[2] and tonumber(cap[2]) < now_us()) then
  return 0
end
return redis.call('HINCRBY', KEYS[1], 'running', '-1')
