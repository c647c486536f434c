-- does:    keeps who may go on with a session, and where it is now; hands it to the instance that
--          its client has come to; forgets it at its end. What another instance has taken over
--          since is left alone; a record that is older than what the caller knows, because the
--          store has come back with an old copy, is set right.
-- KEYS:    1 record hash of the session
-- ARGV:    1 'keep' | 'take' | 'forget'; 2 instance; 3 digest of the session's token; 4 ttl_ms;
--          5 keep: the epoch that the caller was given, 0 if none yet
-- returns: keep, forget: {1, instance, epoch} | {0, the instance that it has moved to, epoch}
--          take: {1, the instance that had it, epoch} | {0, '', 0} no such session, or another token
-- atomic with respect to: resume of the same session
local now = now_us()
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'instance', 'digest', 'epoch')
local known = held[1] and tonumber(held[1]) >= now
local epoch = known and tonumber(held[4] or '0') or 0
local before = known and held[2] or ARGV[2]
local given = tonumber(ARGV[5] or '0')

if ARGV[1] == 'take' then
  if not known or held[3] ~= ARGV[3] then
    return {0, '', 0}
  end
  epoch = math.max(epoch + 1, now)
elseif known and held[2] ~= ARGV[2] and epoch >= given then
  return {0, held[2], epoch}
elseif ARGV[1] == 'forget' then
  redis.call('DEL', KEYS[1])
  return {1, ARGV[2], epoch}
elseif given > epoch then
  epoch = given
elseif epoch == 0 then
  epoch = now
end
redis.call('HSET', KEYS[1], 'instance', ARGV[2], 'digest', ARGV[3],
  'epoch', string.format('%.0f', epoch),
  'expires_us', string.format('%.0f', now + tonumber(ARGV[4]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, before, epoch}
