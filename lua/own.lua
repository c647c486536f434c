-- does:    claims or renews the ownership of a session or a node for an instance. The epoch grows
--          with every change of owner; it is at least the time, so that it cannot start over when
--          the hash has been forgotten.
-- KEYS:    1 ownership hash
-- ARGV:    1 instance; 2 ttl_ms; 3 'keep' (respect another living owner) | 'take' (replace it)
-- returns: {1, owner, epoch} ours now | {0, owner, epoch} another living owner's
-- atomic with respect to: own of the same session or node
local now = now_us()
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'owner', 'epoch')
local alive = held[1] and tonumber(held[1]) >= now
local epoch = tonumber(held[3] or '0')

if alive and held[2] ~= ARGV[1] and ARGV[3] ~= 'take' then
  return {0, held[2], epoch}
end
if not alive or held[2] ~= ARGV[1] then
  epoch = math.max(epoch + 1, now)
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', string.format('%.0f', epoch),
  'expires_us', string.format('%.0f', now + tonumber(ARGV[2]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, ARGV[1], epoch}
