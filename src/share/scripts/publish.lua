-- Publishes the token of an epoch, unless a token of the same or a later epoch is there.
-- KEYS: state, token. ARGV: this replica, its epoch, the sealed token, its life left in ms, the channel.
-- Numbers that no script wrote count as 0.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function number(text)
  local n = tonumber(text)
  if n and n >= 0 and n < 9007199254740992 and n == math.floor(n) then return n end
  return 0
end
local s = redis.call('HMGET', KEYS[1], 'gen', 'epoch', 'owner')
local gen = number(s[1])
local epoch = tonumber(ARGV[2])
if gen >= epoch then return {'superseded', now, gen} end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'gen', epoch, 'gowner', ARGV[1], 'not_before', now + 1000)
if number(s[2]) < epoch then redis.call('HSET', KEYS[1], 'epoch', epoch) end
if s[3] == ARGV[1] then redis.call('HDEL', KEYS[1], 'owner', 'until') end
redis.call('HDEL', KEYS[1], 'refused')
redis.call('PEXPIRE', KEYS[1], 604800000)
redis.call('PUBLISH', ARGV[5], epoch)
return {'published', now, epoch}
