-- does:    extends leases of k nodes that are still alive, never shortens one, drops lapsed ones.
-- KEYS:    1..k lease zset of each node
-- ARGV:    1 lease_ms; 2..k+1 how many members each node has below; then the members
--          'job:attempt', node by node
-- returns: the members that are lost, in the order given: their work must stop
-- atomic with respect to: claim, complete, release_lease, node_gone of the nodes
local now = now_us()
local expiry = now + tonumber(ARGV[1]) * 1000
local lapsed = string.format('(%.0f', now)
local lost = {}
local at = #KEYS + 1
for k = 1, #KEYS do
  local leases = KEYS[k]
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', lapsed)
  for i = at + 1, at + tonumber(ARGV[1 + k]) do
    local held = redis.call('ZSCORE', leases, ARGV[i])
    if not held then
      lost[#lost + 1] = ARGV[i]
    elseif tonumber(held) < expiry then
      redis.call('ZADD', leases, string.format('%.0f', expiry), ARGV[i])
    end
  end
  at = at + tonumber(ARGV[1 + k])
end
return lost
