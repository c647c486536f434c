-- does:    gives a slot back without completing the job; its binding stays as it is.
-- KEYS:    1 lease zset of the node
-- ARGV:    1 job; 2 attempt
-- returns: 1 if the lease was alive, else 0
-- atomic with respect to: claim, complete, renew, node_gone of the node
local now = now_us()
local member = ARGV[1] .. ':' .. ARGV[2]
local expiry = redis.call('ZSCORE', KEYS[1], member)
redis.call('ZREM', KEYS[1], member)
if expiry and tonumber(expiry) >= now then
  return 1
end
return 0
