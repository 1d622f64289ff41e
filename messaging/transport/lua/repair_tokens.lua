-- Take back tokens of queues that are empty, and second tokens. KEYS: where. ARGV: bell, or '' when the names come from
-- `where` itself; then queue names. Returns the number of tokens dropped.
local where, bell, dropped = KEYS[1], ARGV[1], 0
for i = 2, #ARGV do
  local queue = ARGV[i]
  local length = redis.pcall('LLEN', queue)
  local waiting = type(length) == 'number' and length > 0
  local at = redis.call('HGET', where, queue)
  if not waiting then
    drop(where, queue)
    if bell ~= '' then
      redis.call('ZREM', bell .. READY, queue)
    end
    dropped = dropped + 1
  elseif bell ~= '' and at ~= bell then
    if at then
      redis.call('ZREM', bell .. READY, queue)
      dropped = dropped + 1
    else
      redis.call('HSET', where, queue, bell)
    end
  end
end
if bell ~= '' then
  ring_if_ready(bell)
end
return dropped
