-- basic_get of one named queue. KEYS: unacked, index, where, unreadable, queue. ARGV: '1' to register as unacked.
-- Returns {tag, message}; an empty table for a device queue whose next entry is no message; false when the queue has
-- no token, so is either empty or not a device queue.
local queue = KEYS[5]
if redis.call('HEXISTS', KEYS[3], queue) == 0 then
  return false
end
local raw = redis.call('RPOP', queue)
if redis.call('EXISTS', queue) == 0 then
  drop(KEYS[3], queue)
end
if not raw then
  return false
end
local tag = register(KEYS[1], KEYS[2], queue, raw, 0, ARGV[1] == '1')
if not tag then
  set_aside(KEYS[4], raw)
  return {}
end
return {tag, raw}
