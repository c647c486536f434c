-- does:    moves a job's state: CREATED, DISPATCHED, ACCEPTED, RUNNING, FINISHED, RELEASED. The
--          step that was reached, or an earlier one, is done again with success and no change.
--          FINISHED may follow any earlier state; dispatch, accept and finish need the current
--          attempt. `create` with a newer attempt starts anew (a failover).
-- KEYS:    1 state hash of the job
-- ARGV:    1 create | dispatch | accept | run | finish | release; 2 job; 3 node; 4 attempt;
--          5 ttl_ms, used by create; 6 finished_ok 0|1, used by finish
-- returns: 1 if the state is now at or past the step, else 0 (no such hash, wrong attempt, a step
--          left out)
-- atomic with respect to: fsm of the same job
local STATE = {create = 'CREATED', dispatch = 'DISPATCHED', accept = 'ACCEPTED', run = 'RUNNING',
  finish = 'FINISHED', release = 'RELEASED'}
local RANK = {CREATED = 1, DISPATCHED = 2, ACCEPTED = 3, RUNNING = 4, FINISHED = 5, RELEASED = 6}
local NEEDS_ATTEMPT = {dispatch = true, accept = true, finish = true}

local step, attempt = ARGV[1], tonumber(ARGV[4])
local target = STATE[step]
if not target then
  return redis.error_reply('ERR fsm: no such step: ' .. step)
end
local now = now_us()
local now_ms = string.format('%.0f', math.floor(now / 1000))
local held = redis.call('HMGET', KEYS[1], 'expires_us', 'state', 'attempt_id')
local alive = held[1] and tonumber(held[1]) >= now

if step == 'create' then
  if alive and tonumber(held[3]) >= attempt then
    return 1
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'job_id', ARGV[2], 'state', target, 'node_id', ARGV[3],
    'attempt_id', string.format('%.0f', attempt), 'created_at_ms', now_ms,
    'updated_at_ms', now_ms, 'finished_ok', '',
    'expires_us', string.format('%.0f', now + tonumber(ARGV[5]) * 1000))
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return 1
end

if not alive or (NEEDS_ATTEMPT[step] and tonumber(held[3]) ~= attempt) then
  return 0
end
local reached = RANK[held[2]]
if reached >= RANK[target] then
  return 1
end
if step ~= 'finish' and reached ~= RANK[target] - 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'state', target, 'updated_at_ms', now_ms)
if step == 'finish' then
  redis.call('HSET', KEYS[1], 'finished_ok', ARGV[6])
end
return 1
