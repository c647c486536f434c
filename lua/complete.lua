-- does:    accepts the end of a job once, from its current attempt only, and frees the lease of
--          the attempt that reports (a stale one too: its node has ended the work).
--          A job that the store has forgotten, because a failover lost it, is written down as
--          done, so that a second end of it is recognised. Whose claim it is may give a job up
--          whatever its attempt: a claim of its own whose answer is under way may have been newer.
-- KEYS:    1 binding hash; 2 lease zset of the reporting node; 3 ownership hash of the session
-- ARGV:    1 job; 2 attempt; 3 status; 4 completion token; 5 binding_ttl_ms, how long the outcome
--          is remembered; 6 the reporting instance
-- returns: {'ACCEPTED'} also to a repeat with the same token | {'STALE', current attempt, owner}
--          | {'DONE', status, completion token} it has ended before
--          | {'MOVED', instance} the session is another instance's now: nothing was accepted
-- atomic with respect to: claim, bind, complete of this job; claim, renew, release_lease,
--          node_gone of the node; own of the session
local now = now_us()
redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])
local held = redis.call('HMGET', KEYS[1],
  'expires_us', 'job', 'attempt', 'state', 'status', 'done_token', 'owner')

local known = held[1] and tonumber(held[1]) >= now and held[2] == ARGV[1]
if known then
  local current = tonumber(held[3])
  local gives_up = ARGV[3] == 'failed' and held[7] == ARGV[6] and held[4] ~= 'done'
  if current ~= tonumber(ARGV[2]) and not gives_up then
    return {'STALE', current, held[7]}
  end
  if held[4] == 'done' then
    if held[6] == ARGV[4] then
      return {'ACCEPTED'}
    end
    return {'DONE', held[5], held[6]}
  end
end

local session = redis.call('HMGET', KEYS[3], 'expires_us', 'owner')
if session[1] and tonumber(session[1]) >= now and session[2] ~= ARGV[6] then
  return {'MOVED', session[2]}
end

if not known then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'job', ARGV[1], 'attempt', ARGV[2], 'node', '', 'owner', ARGV[6])
end
redis.call('HSET', KEYS[1], 'state', 'done', 'status', ARGV[3], 'done_token', ARGV[4],
  'expires_us', string.format('%.0f', now + tonumber(ARGV[5]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'ACCEPTED'}
