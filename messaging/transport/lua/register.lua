-- A message of an ordinary queue was delivered. KEYS: unacked, index. ARGV: tag, entry.
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
