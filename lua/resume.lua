-- does:    keeps who may go on with a session, and where it is now; hands it to the instance that
--          its client has come to; forgets it at its end. What another instance has taken over is
--          left alone.
-- KEYS:    1 record hash of the session
-- ARGV:    1 'keep' | 'take' | 'forget'; 2 instance; 3 digest of the session's token; 4 ttl_ms
-- returns: keep, forget: {1, instance} | {0, the instance that it has moved to}
--          take: {1, the instance that had it} | {0, ''} no such session, or another token
-- atomic with respect to: resume of the same session
local now = now_us()
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'instance', 'digest')
local known = held[1] and tonumber(held[1]) >= now

if ARGV[1] == 'take' then
  if not known or held[3] ~= ARGV[3] then
    return {0, ''}
  end
elseif known and held[2] ~= ARGV[2] then
  return {0, held[2]}
elseif ARGV[1] == 'forget' then
  redis.call('DEL', KEYS[1])
  return {1, ARGV[2]}
end
redis.call('HSET', KEYS[1], 'instance', ARGV[2], 'digest', ARGV[3],
  'expires_us', string.format('%.0f', now + tonumber(ARGV[4]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, known and held[2] or ARGV[2]}
