-- Asks for the token and, where there is no newer one, for the lead of its renewal.
-- KEYS: state, token. ARGV: this replica, the generation it holds, the owner of that, lease in ms, 'lead' or
-- 'look', the fingerprint of its client secret, token requests of all replicas in an hour (0: no limit).
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local s = redis.call('HMGET', KEYS[1], 'gen', 'gowner', 'owner', 'until', 'not_before', 'epoch',
  'refused', 'hour', 'calls')
local gen = tonumber(s[1] or 0)
local known = tonumber(ARGV[2])
local token = redis.call('GET', KEYS[2])
if token and (gen > known or (gen == known and s[2] ~= ARGV[3])) then
  return {'token', now, gen, s[2], token, redis.call('PTTL', KEYS[2])}
end
if ARGV[5] == 'look' then return {'none', now} end
if s[3] and tonumber(s[4]) > now and s[3] ~= ARGV[1] then
  return {'held', now, tonumber(s[4]) - now, s[3]}
end
-- A pause after a refused secret holds for that secret: one replica may see its rotation before the others.
local rotated = s[7] and s[7] ~= ARGV[6]
if s[5] and tonumber(s[5]) > now and not rotated then return {'wait', now, tonumber(s[5]) - now} end
local hour = math.floor(now / 3600000)
local calls = 0
if s[8] and tonumber(s[8]) == hour then calls = tonumber(s[9]) end
local budget = tonumber(ARGV[7])
if budget > 0 and calls >= budget then return {'wait', now, (hour + 1) * 3600000 - now} end
local epoch = math.max(gen, known, tonumber(s[6] or 0)) + 1
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'until', now + tonumber(ARGV[4]),
  'hour', hour, 'calls', calls + 1)
redis.call('PEXPIRE', KEYS[1], 604800000)
return {'lead', now, epoch}
