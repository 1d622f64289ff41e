-- Empty a queue, all its priorities, and take its token away. KEYS: where, the queue's lists, plain one first.
-- ARGV: '1' to leave a queue without token alone. Returns the number of messages removed. A bell that lay in the list is not a message and is rung again if needed.
local where, queue, removed = KEYS[1], KEYS[2], 0
if ARGV[1] == '1' and redis.call('HEXISTS', where, queue) == 0 then
  return 0
end
redis.call('LREM', queue, 0, BELL)
for i = 2, #KEYS do
  removed = removed + redis.call('LLEN', KEYS[i])
  redis.call('DEL', KEYS[i])
end
drop(where, queue)
ring_if_ready(queue)
return removed
