-- Acknowledge. KEYS: unacked, index. ARGV: tags.
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return 1
