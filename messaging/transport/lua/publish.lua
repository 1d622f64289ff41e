-- KEYS: queue, bell, where. ARGV: message.
redis.call('LPUSH', KEYS[1], ARGV[1])
place(KEYS[3], KEYS[2], KEYS[1])
return 1
