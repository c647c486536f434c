-- Not a script: whoever loads a script puts this text in front of it.
-- does:    gives every script its one source of time, the store's own clock.
-- A simulator injects its own now_us in place of this file, a test a fixed one.
-- Rules of all scripts: values carry their own expiry (expires_us) and are alive while
-- now <= expiry; native PEXPIRE only gives memory back later, never earlier.
local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
