-- Renews a lease while its token request is under way.
-- KEYS: state. ARGV: this replica, its epoch, lease in ms.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local s = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if s[1] == ARGV[1] and tonumber(s[2]) == tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[3]))
  return {'renewed', now}
end
return {'lost', now}
