-- Take up to ARGV[1] messages from the queues that stand ready under the given bells, one per queue and turn.
-- KEYS: unacked, index, where, unreadable, then the bells. ARGV: most messages, '1' to register them as unacked.
-- Returns {place of the bell from 0, delivery tag, message, ...}. Cost: per message, whatever the number of queues.
local FIRST = 5
local where = KEYS[3]
local most = tonumber(ARGV[1])
local out, taken, looked = {}, 0, 0
local dry, open = {}, #KEYS - FIRST + 1

-- `looked` bounds the work when thousands of lists were deleted behind our back and left their tokens.
while open > 0 and taken < most and looked < most * 8 + 64 do
  for b = FIRST, #KEYS do
    if not dry[b] and taken < most then
      looked = looked + 1
      local bell = KEYS[b]
      local queue = redis.call('ZPOPMIN', bell .. READY)[1]
      if not queue then
        dry[b] = true
        open = open - 1
      else
        local raw = redis.pcall('RPOP', queue)
        local readable = type(raw) == 'string'
        if readable and redis.call('EXISTS', queue) == 1 then
          queue_up(bell, queue)
        else
          redis.call('HDEL', where, queue)
        end
        if readable then
          local tag = register(KEYS[1], KEYS[2], queue, raw, taken, ARGV[2] == '1')
          if tag then
            out[#out + 1] = b - FIRST
            out[#out + 1] = tag
            out[#out + 1] = raw
            taken = taken + 1
          else
            set_aside(KEYS[4], raw)
          end
        end
      end
    end
  end
end

-- What is left wakes the next consumer, which may be another worker.
for b = FIRST, #KEYS do
  if not dry[b] then
    ring_if_ready(KEYS[b])
  end
end
return out
