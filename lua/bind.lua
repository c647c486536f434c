-- does:    binds a request to a job without taking a slot: the first writer wins, a loser reads
--          the winner; a repeat by the winner (same token) gets its first answer again.
-- KEYS:    1 binding hash
-- ARGV:    1 job; 2 node or ''; 3 owner instance; 4 claim token; 5 binding_ttl_ms
-- returns: {'CLAIMED', job, node, attempt} | {'BOUND', job, node, attempt, owner, done 0|1}
-- atomic with respect to: bind, claim and complete of this request
local now = now_us()
local held = redis.call('HMGET', KEYS[1],
  'expires_us', 'job', 'node', 'attempt', 'owner', 'state', 'token')

if held[1] and tonumber(held[1]) >= now then
  local attempt, done = tonumber(held[4]), held[6] == 'done'
  if held[7] == ARGV[4] and attempt == 1 and not done then
    return {'CLAIMED', held[2], held[3], attempt}
  end
  return {'BOUND', held[2], held[3], attempt, held[5], done and 1 or 0}
end

if held[1] then
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'job', ARGV[1], 'node', ARGV[2], 'attempt', '1', 'owner', ARGV[3],
  'token', ARGV[4], 'state', 'claimed',
  'expires_us', string.format('%.0f', now + tonumber(ARGV[5]) * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'CLAIMED', ARGV[1], ARGV[2], 1}
