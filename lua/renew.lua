-- does:    extends a node's leases that are still alive, never shortens one, drops lapsed ones.
-- KEYS:    1 lease zset of the node
-- ARGV:    1 lease_ms; 2.. members 'job:attempt'
-- returns: the members that are lost, in the order given: their work must stop
-- atomic with respect to: claim, complete, release_lease, node_gone of the node
local now = now_us()
local expiry = now + tonumber(ARGV[1]) * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
local lost = {}
for i = 2, #ARGV do
  local held = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not held then
    lost[#lost + 1] = ARGV[i]
  elseif tonumber(held) < expiry then
    redis.call('ZADD', KEYS[1], string.format('%.0f', expiry), ARGV[i])
  end
end
return lost
