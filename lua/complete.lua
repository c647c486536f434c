-- does:    accepts the end of a job once, from its current attempt only, and frees the lease of
--          the attempt that reports (a stale one too: its node has ended the work).
-- KEYS:    1 binding hash; 2 lease zset of the reporting node
-- ARGV:    1 job; 2 attempt; 3 status; 4 completion token; 5 binding_ttl_ms, how long the outcome
--          is remembered
-- returns: {'ACCEPTED'} also to a repeat with the same token | {'STALE', current attempt}
--          | {'DONE', status} somebody else was first | {'UNKNOWN'} no such binding alive
-- atomic with respect to: claim, bind, complete of this job; claim, renew, release_lease,
--          node_gone of the node
local now = now_us()
redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])
local held = redis.call('HMGET', KEYS[1],
  'expires_us', 'job', 'attempt', 'state', 'status', 'done_token')

if not held[1] or tonumber(held[1]) < now or held[2] ~= ARGV[1] then
  return {'UNKNOWN'}
end
local current = tonumber(held[3])
if current ~= tonumber(ARGV[2]) then
  return {'STALE', current}
end
if held[4] == 'done' then
  if held[6] == ARGV[4] then
    return {'ACCEPTED'}
  end
  return {'DONE', held[5]}
end

redis.call('HSET', KEYS[1], 'state', 'done', 'status', ARGV[3], 'done_token', ARGV[4],
  'expires_us', string.format('%.0f', now + tonumber(ARGV[5]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'ACCEPTED'}
