-- Appends a batch whole or not at all, then hints at it once.
-- KEYS  log, meta
-- ARGV  epoch; n of the first event; '1' if the last one is terminal; channel; the hint's head, its frames;
--       then for each event its position and its JSON
-- ->    'FENCED', the later epoch | 'UNOPENED' | 'STORED' | 'CLOSED' | 'LOST', n, ms
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'n', 'ms', 'closed')
local epoch, mine = tonumber(meta[1] or '0'), tonumber(ARGV[1])
if epoch > mine then return {'FENCED', epoch} end
if epoch < mine then return {'UNOPENED'} end

local n, first, count = tonumber(meta[2]), tonumber(ARGV[2]), (#ARGV - 6) / 2
if n >= first + count - 1 then return {'STORED'} end  -- came before; its reply was lost
if meta[4] then return {'CLOSED'} end
if n < first - 1 then return {'LOST', n, meta[3]} end

-- An error after the first XADD would leave half a batch behind: nothing is written before every position is checked.
local skip, ms = n - first + 1, tonumber(meta[3])
for i = skip, count - 1 do
  local its_ms, its_n = string.match(ARGV[7 + 2 * i], '^(%d+)%-(%d+)$')
  if not its_ms or tonumber(its_n) ~= first + i or tonumber(its_ms) < ms then
    return redis.error_reply('ORDER the positions of a batch must go on from the log')
  end
  ms = tonumber(its_ms)
end

for i = skip, count - 1 do
  redis.call('XADD', KEYS[1], ARGV[7 + 2 * i], 'd', ARGV[8 + 2 * i])
end
local last = ARGV[#ARGV - 1]
redis.call('HSET', KEYS[2], 'n', first + count - 1, 'ms', string.match(last, '^%d+'))
if ARGV[3] == '1' then redis.call('HSET', KEYS[2], 'closed', 1) end
if skip == 0 then
  redis.call('PUBLISH', ARGV[4], ARGV[5] .. ARGV[6])
else
  -- Part of it was there already: the frames would repeat that part, so readers are only told how far the log reaches.
  redis.call('PUBLISH', ARGV[4], mine .. ' ' .. meta[3] .. '-' .. n .. ' ' .. last .. ' ' .. ARGV[3] .. '\n')
end
return {'STORED'}
