-- does:    gives a job's next attempt to the first of k candidate nodes that has a free slot:
--          binding, lease and fence number in one step. A repeat (same token, same expected
--          attempt) gets its first answer again and writes nothing. A refusal writes nothing
--          but the removal of lapsed leases. Only the instance that has the session may claim.
-- KEYS:    1 binding hash; 2 ownership hash of the session; 3..k+2 lease zset of each candidate;
--          k+3..2k+2 node hash of each
-- ARGV:    1 job; 2 expected attempt (0 for a new job); 3 owner instance; 4 claim token, new for
--          every attempt; 5 lease_ms; 6 binding_ttl_ms, longer than the job lives; 7 1 to do again
--          what is done (its answer has not reached the client), else 0; 8.. node ids
-- returns: {'CLAIMED', job, node, attempt, live leases with this one, slots}
--          {'BOUND', job, node, attempt, owner, done 0|1} somebody else's, a newer or a done one
--          {'MOVED', instance} the session is another living instance's now
--          {'FULL', reason per candidate: NOT_READY | NO_CAPACITY | FULL}
-- atomic with respect to: claim, bind, complete of this job; claim, complete, renew,
--          release_lease, node_gone, heartbeat_keep of the candidate nodes; own of the session
local now = now_us()
local job, expected, owner, token = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local session = redis.call('HMGET', KEYS[2], 'expires_us', 'owner')
if session[1] and tonumber(session[1]) >= now and session[2] ~= owner then
  return {'MOVED', session[2]}
end
local held = redis.call('HMGET', KEYS[1],
  'expires_us', 'job', 'node', 'attempt', 'owner', 'state', 'token', 'live', 'slots')

if held[1] and tonumber(held[1]) >= now then
  local attempt, done = tonumber(held[4]), held[6] == 'done'
  if held[7] == token and attempt == expected + 1 and not done then
    return {'CLAIMED', held[2], held[3], attempt, tonumber(held[8]), tonumber(held[9])}
  end
  local again = done and ARGV[7] == '1' and attempt == expected
  if not again and (done or expected == 0 or attempt > expected) then
    return {'BOUND', held[2], held[3], attempt, held[5], done and 1 or 0}
  end
end

local function take(leases, node, live, slots)
  local attempt = string.format('%.0f', expected + 1)
  redis.call('ZADD', leases, string.format('%.0f', now + tonumber(ARGV[5]) * 1000),
    job .. ':' .. attempt)
  if held[1] then
    redis.call('DEL', KEYS[1])
  end
  redis.call('HSET', KEYS[1], 'job', job, 'node', node, 'attempt', attempt, 'owner', owner,
    'token', token, 'state', 'claimed', 'live', string.format('%.0f', live),
    'slots', string.format('%.0f', slots),
    'expires_us', string.format('%.0f', now + tonumber(ARGV[6]) * 1000))
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  return {'CLAIMED', job, node, expected + 1, live, slots}
end

local candidates = #ARGV - 7
local lapsed = string.format('(%.0f', now)
local answer = {'FULL'}
for i = 1, candidates do
  local leases = KEYS[2 + i]
  local node = redis.call('HMGET', KEYS[2 + candidates + i], 'health', 'slots', 'expires_us')
  local slots = tonumber(node[2] or '0') or 0
  if node[1] ~= 'ready' or (node[3] and tonumber(node[3]) < now) then
    answer[i + 1] = 'NOT_READY'
  elseif slots < 1 then
    answer[i + 1] = 'NO_CAPACITY'
  else
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', lapsed)
    local live = redis.call('ZCARD', leases)
    if live < slots then
      return take(leases, ARGV[7 + i], live + 1, slots)
    end
    answer[i + 1] = 'FULL'
  end
end
return answer
