-- A new holder takes a log: fences every older one and learns how far the log reaches.
-- KEYS  log, meta
-- ARGV  epoch; n and ms of the last event that is known to exist elsewhere
-- ->    'FENCED', the later epoch | 'OPENED', n, ms, closed
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'n', 'ms', 'closed')
local epoch = tonumber(meta[1] or '0')
if epoch > tonumber(ARGV[1]) then return {'FENCED', epoch} end

local n, ms, closed = tonumber(meta[2] or '0'), meta[3] or '0', meta[4] and 1 or 0
if n < tonumber(ARGV[2]) then
  -- This store lost what another one has: the log goes on after that, and what is here is no part of it.
  redis.call('DEL', KEYS[1])
  n, ms = tonumber(ARGV[2]), ARGV[3]
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'n', n, 'ms', ms)
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
return {'OPENED', n, ms, closed}
