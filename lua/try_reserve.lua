-- does:    reserves a slot of a node by counting it, as the reference does. When a reservation
--          lapses its count stays until the next heartbeat (fault B21), and a repeat of one's own
--          reservation is refused with RESV_EXISTS.
-- KEYS:    1 capacity hash {max, running, reserved}; 2 meta hash {health}; 3 reservation of this
--          (job, attempt, node)
-- ARGV:    1 ttl_ms
-- returns: {1, 'OK'} | {0, reason}: NOT_READY | NO_CAPACITY | FULL | RESV_EXISTS
-- atomic with respect to: release, commit, dec_running, heartbeat_reset, heartbeat_keep
local now = now_us()

local function lapsed(expires_us)
  return expires_us and tonumber(expires_us) < now
end

local meta = redis.call('HMGET', KEYS[2], 'health', 'expires_us')
if meta[1] and not lapsed(meta[2]) and meta[1] ~= 'ready' then
  return {0, 'NOT_READY'}
end
local cap = redis.call('HMGET', KEYS[1], 'max', 'running', 'reserved', 'expires_us')
local max = tonumber(cap[1] or '0') or 0
if max < 1 or lapsed(cap[4]) then
  return {0, 'NO_CAPACITY'}
end
if tonumber(cap[2] or '0') + tonumber(cap[3] or '0') >= max then
  return {0, 'FULL'}
end
local held = redis.call('GET', KEYS[3])
if held and not lapsed(held) then
  return {0, 'RESV_EXISTS'}
end
redis.call('HINCRBY', KEYS[1], 'reserved', '1')
redis.call('SET', KEYS[3], string.format('%.0f', now + tonumber(ARGV[1]) * 1000), 'PX', ARGV[1])
return {1, 'OK'}
