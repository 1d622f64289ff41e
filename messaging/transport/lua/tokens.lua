-- Shared by every script. A *token* is what makes a waiting device queue visible to consumers: a member of the sorted
-- set `<bell>:ready`, its score being its place in the round robin. The hash `where` says under which bell a queue's
-- token stands. Rule kept by each script: a device queue has a token if and only if its list is not empty.
-- BELL and READY are defined by the loader.

-- Wake one waiting consumer. The entry is worthless: at most one or two lie in a bell list, and none is ever needed.
local function ring(bell)
  if redis.call('LINDEX', bell, -1) ~= BELL then
    redis.call('RPUSH', bell, BELL)
  end
end

local function ring_if_ready(bell)
  if redis.call('EXISTS', bell .. READY) == 1 then
    ring(bell)
  end
end

-- To the end of the round robin. Scores come from the set itself: no clock that can jump, no counter that can be lost.
local function queue_up(bell, queue)
  local last = redis.call('ZRANGE', bell .. READY, -1, -1, 'WITHSCORES')
  redis.call('ZADD', bell .. READY, string.format('%.0f', (tonumber(last[2]) or 0) + 1), queue)
end

-- Make sure a queue that just became (or stayed) non-empty has its one token, under `bell`.
local function place(where, bell, queue)
  local at = redis.call('HGET', where, queue)
  if at ~= bell then
    if at then
      redis.call('ZREM', at .. READY, queue)
    end
    redis.call('HSET', where, queue, bell)
    queue_up(bell, queue)
  end
  ring(bell)
end

local function drop(where, queue)
  local at = redis.call('HGET', where, queue)
  if at then
    redis.call('ZREM', at .. READY, queue)
    redis.call('HDEL', where, queue)
  end
end

-- Remember a message as delivered and not yet acknowledged, in kombu's own format. The n-th of one script is n
-- microseconds later than the first, so that the index keeps the order in which messages were taken.
-- Returns the delivery tag, or false for something that is no kombu message.
local function register(unacked, index, queue, raw, nth, keep)
  local ok, tag = pcall(function() return cjson.decode(raw).properties.delivery_tag end)
  if not ok or type(tag) ~= 'string' then
    return false
  end
  if keep then
    local now = redis.call('TIME')
    redis.call('ZADD', index, string.format('%.6f', now[1] + (now[2] + nth) / 1000000), tag)
    redis.call('HSET', unacked, tag, '[' .. raw .. ', "", ' .. cjson.encode(queue) .. ']')
  end
  return tag
end

local function set_aside(unreadable, raw)
  redis.call('LPUSH', unreadable, raw)
  redis.call('LTRIM', unreadable, 0, 999)
end
