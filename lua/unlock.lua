-- does:    releases the request lock if the caller still holds it. The lock itself is the
--          reference's plain SET NX PX, the one value here whose life is its native expiry; it
--          has no fence, and what it guards may outlive it.
-- KEYS:    1 lock
-- ARGV:    1 owner token
-- returns: 1 if released, 0 if it was somebody else's or gone
-- atomic with respect to: SET NX PX of the lock
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
