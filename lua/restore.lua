-- does:    says again what became of a job, to a store that may have forgotten it: its binding,
--          and the lease of an attempt that runs. What the store knows better stays.
-- KEYS:    1 binding hash; 2 lease zset of the job's node
-- ARGV:    1 job; 2 attempt; 3 node; 4 owner; 5 claim or completion token; 6 'claimed' | 'done';
--          7 status of a done job; 8 lease_ms; 9 binding_ttl_ms
-- returns: 'RESTORED' it was forgotten, wholly or in part | 'KEPT' it was known
--          | 'LOST' a newer attempt, or the end of the job, is known
-- atomic with respect to: claim, complete, restore of this job; claim, renew, release_lease,
--          node_gone of the node
local now = now_us()
local job, attempt, done = ARGV[1], tonumber(ARGV[2]), ARGV[6] == 'done'
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'job', 'attempt', 'state', 'owner')
local known = held[1] and tonumber(held[1]) >= now and held[2] == job

if known and not done then
  local other = held[5] ~= ARGV[4] and tonumber(held[3]) == attempt
  if held[4] == 'done' or tonumber(held[3]) > attempt or other then
    return 'LOST'
  end
end
if known and done and (held[4] == 'done' or tonumber(held[3]) > attempt) then
  return 'KEPT'
end

local restored = false
if not known or done or tonumber(held[3]) < attempt then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'job', job, 'node', ARGV[3], 'attempt', string.format('%.0f', attempt),
    'owner', ARGV[4], 'state', ARGV[6], 'expires_us', string.format('%.0f', now + tonumber(ARGV[9]) * 1000))
  if done then
    redis.call('HSET', KEYS[1], 'status', ARGV[7], 'done_token', ARGV[5])
  else
    redis.call('HSET', KEYS[1], 'token', ARGV[5], 'live', '0', 'slots', '0')
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  restored = true
end
if not done then
  local member = job .. ':' .. ARGV[2]
  local lease = redis.call('ZSCORE', KEYS[2], member)
  if not lease or tonumber(lease) < now then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[8]) * 1000), member)
    restored = true
  end
end
return restored and 'RESTORED' or 'KEPT'
