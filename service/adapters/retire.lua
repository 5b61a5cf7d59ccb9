-- An archived log may go: after a while what has its end, at once what has lost it, or what a stale holder opened anew.
-- KEYS  log, meta
-- ARGV  seconds
if redis.call('HGET', KEYS[2], 'closed') then
  for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) == -1 then
      redis.call('EXPIRE', key, ARGV[1])
    end
  end
else
  redis.call('UNLINK', KEYS[1], KEYS[2])
end
