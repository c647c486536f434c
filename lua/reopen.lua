-- does:    takes back that a job is done, because its answer has not reached the client: its next
--          attempt may be claimed, above all attempts before.
-- KEYS:    1 binding hash
-- ARGV:    1 job; 2 binding_ttl_ms
-- returns: the attempt that the job has come to | 0 it is not known, or it runs
-- atomic with respect to: claim, bind, complete, restore of this job
local now = now_us()
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'job', 'attempt', 'state')
if not held[1] or tonumber(held[1]) < now or held[2] ~= ARGV[1] then
  return 0
end
if held[4] ~= 'done' and held[4] ~= 'open' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'open', 'status', '', 'done_token', '', 'token', '',
  'expires_us', string.format('%.0f', now + tonumber(ARGV[2]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(held[3])
