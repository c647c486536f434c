-- does:    gives slots of k nodes back without completing their jobs; the bindings stay as they are.
-- KEYS:    1..k lease zset of each node
-- ARGV:    1..k how many members each node has below; then the members 'job:attempt', node by node
-- returns: how many of the leases were alive
-- atomic with respect to: claim, complete, renew, node_gone of the nodes
local now = now_us()
local alive, at = 0, #KEYS
for k = 1, #KEYS do
  for i = at + 1, at + tonumber(ARGV[k]) do
    local member = ARGV[i]
    local expiry = redis.call('ZSCORE', KEYS[k], member)
    redis.call('ZREM', KEYS[k], member)
    if expiry and tonumber(expiry) >= now then
      alive = alive + 1
    end
  end
  at = at + tonumber(ARGV[k])
end
return alive
