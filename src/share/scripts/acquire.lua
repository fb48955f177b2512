-- Asks for the token and, where there is no newer one, for the lead of its renewal.
-- KEYS: state, token. ARGV: this replica, the generation it holds, the owner of that, lease in ms, 'lead' or
-- 'look', the fingerprint of its client secret, token requests of all replicas in an hour (0: no limit).
-- What no script wrote counts as absent: numbers of another form, texts and tokens that are too long, keys of
-- another type, tokens without an end, and times that lie too far ahead.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function number(text)
  local n = tonumber(text)
  if n and n >= 0 and n < 9007199254740992 and n == math.floor(n) then return n end
  return 0
end
local function time(text, most)
  local n = number(text)
  if n > now and n <= now + most then return n end
  return 0
end
local function get(...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err and string.find(found.err, 'WRONGTYPE', 1, true) then
    redis.call('PEXPIRE', select(2, ...), 0)
    return {}
  end
  return found
end
local s = get('HMGET', KEYS[1], 'gen', 'gowner', 'owner', 'until', 'not_before', 'epoch', 'refused', 'hour',
  'calls')
if s.err then return s end
local gen, known = number(s[1]), tonumber(ARGV[2])
local gowner = s[2] and #s[2] <= 256 and s[2] or ''
local token = get('GET', KEYS[2])
if type(token) == 'table' then
  if token.err then return token end
  token = false
end
local left = token and redis.call('PTTL', KEYS[2]) or 0
if left > 0 and #token <= 1048576 and (gen > known or (gen == known and gowner ~= ARGV[3])) then
  return {'token', now, gen, gowner, token, left}
end
if ARGV[5] == 'look' then return {'none', now} end
local lease = time(s[4], 60000)
if s[3] and lease > 0 and s[3] ~= ARGV[1] then return {'held', now, lease - now} end
-- A pause after a refused secret holds for that secret: one replica may see its rotation before the others.
local rotated = s[7] and s[7] ~= ARGV[6]
local pause = time(s[5], 3600000)
if pause > 0 and not rotated then return {'wait', now, pause - now} end
local hour = math.floor(now / 3600000)
local calls = 0
if number(s[8]) == hour then calls = number(s[9]) end
local budget = tonumber(ARGV[7])
if budget > 0 and calls >= budget then return {'wait', now, (hour + 1) * 3600000 - now} end
local epoch = math.max(gen, known, number(s[6])) + 1
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'until', now + tonumber(ARGV[4]),
  'hour', hour, 'calls', calls + 1)
redis.call('PEXPIRE', KEYS[1], 604800000)
return {'lead', now, epoch}
