-- Gives the lead back after a failed token request.
-- KEYS: state. ARGV: this replica, the time in ms for which no replica tries again, the
-- fingerprint of the client secret if the server refused it, or ''.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'owner', 'until')
  redis.call('HSET', KEYS[1], 'not_before', now + tonumber(ARGV[2]))
  if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], 'refused')
  else
    redis.call('HSET', KEYS[1], 'refused', ARGV[3])
  end
  return {'failed', now}
end
return {'lost', now}
