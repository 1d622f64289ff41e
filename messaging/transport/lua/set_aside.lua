-- A delivered entry that only looked like a message. KEYS: unacked, index, unreadable. ARGV: tag, raw.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
set_aside(KEYS[3], ARGV[2])
return 1
