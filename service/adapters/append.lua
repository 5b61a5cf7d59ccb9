-- Appends a batch whole or not at all, then hints at it once.
-- KEYS  log, meta
-- ARGV  epoch; n before the first event, n of the last; '1' if that one is terminal; channel; the hint's head; '1' if
--       the frames travel with it; the frames, of which each is 'id: <position>\ndata: <JSON>\n\n'; the span in which
--       they were written, or ''
-- ->    'FENCED', the later epoch | 'UNOPENED' | 'STORED' | 'CLOSED' | 'LOST', n, ms
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'n', 'ms', 'closed')
local epoch, mine = tonumber(meta[1] or '0'), tonumber(ARGV[1])
if epoch > mine then return {'FENCED', epoch} end
if epoch < mine then return {'UNOPENED'} end

local n, before, last = tonumber(meta[2]), tonumber(ARGV[2]), tonumber(ARGV[3])
if n >= last then return {'STORED'} end  -- came before; its reply was lost
if meta[4] then return {'CLOSED'} end
if n < before then return {'LOST', n, meta[3]} end

-- An error after the first XADD would leave half a batch behind: nothing is written before every position is checked.
local frames, at, ms = ARGV[8], 1, meta[3]
local positions, events = {}, {}
for its_n = before + 1, last do
  local line, its_ms, number, data = string.match(frames, '^id: ((%d+)%-(%d+))\ndata: ()', at)
  local after = data and string.find(frames, '\n\n', data, true)
  if not after or tonumber(number) ~= its_n or (its_n > n and tonumber(its_ms) < tonumber(ms)) then
    return redis.error_reply('ORDER the positions of a batch must go on from the log')
  end
  if its_n > n then
    ms = its_ms
    positions[its_n], events[its_n] = line, string.sub(frames, data, after - 1)
  end
  at = after + 2
end
if at <= #frames then return redis.error_reply('ORDER a batch ends with its last event') end

for its_n = n + 1, last do
  if its_n == last and ARGV[9] ~= '' then
    redis.call('XADD', KEYS[1], positions[its_n], 'd', events[its_n], 't', ARGV[9])
  else
    redis.call('XADD', KEYS[1], positions[its_n], 'd', events[its_n])
  end
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[2], 'n', last, 'ms', ms, 'closed', 1)
else
  redis.call('HSET', KEYS[2], 'n', last, 'ms', ms)
end
if n > before then
  -- Part of it was there already: the frames would repeat that part, so readers are only told how far the log reaches.
  redis.call('PUBLISH', ARGV[5], mine .. ' ' .. meta[3] .. '-' .. n .. ' ' .. positions[last] .. ' ' .. ARGV[4] .. '\n')
elseif ARGV[7] == '1' then
  redis.call('PUBLISH', ARGV[5], ARGV[6] .. frames)
else
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return {'STORED'}
