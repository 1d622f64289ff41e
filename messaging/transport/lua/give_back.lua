-- Put an unacknowledged message back into its own queue, at its own place.
-- KEYS: unacked, index, queue, where. ARGV: tag, entry as it was read from the unacked hash, message to put back, bell,
-- when it was first taken, highest index score allowed ('' for any).
-- Does nothing when the entry is gone, or has since been taken again: two sweeps, or a sweep and a late ack, may race.
local tag = ARGV[1]
if redis.call('HGET', KEYS[1], tag) ~= ARGV[2] then
  return 0
end
if ARGV[6] ~= '' then
  local score = redis.call('ZSCORE', KEYS[2], tag)
  if score and tonumber(score) > tonumber(ARGV[6]) then
    return 0
  end
end
redis.call('HDEL', KEYS[1], tag)
redis.call('ZREM', KEYS[2], tag)

-- The next message to be taken is the last of the list. Those that came back before us and were taken before us stay
-- in front of us; messages that were never taken have no mark and are always behind.
local ahead = {}
while true do
  local head = redis.call('LINDEX', KEYS[3], -1)
  local ok, taken = pcall(function() return cjson.decode(head).headers[TAKEN] end)
  if not ok or type(taken) ~= 'number' or taken >= tonumber(ARGV[5]) then
    break
  end
  ahead[#ahead + 1] = redis.call('RPOP', KEYS[3])
end
redis.call('RPUSH', KEYS[3], ARGV[3])
for i = #ahead, 1, -1 do
  redis.call('RPUSH', KEYS[3], ahead[i])
end

local at = redis.call('HGET', KEYS[4], KEYS[3])
place(KEYS[4], at or ARGV[4], KEYS[3])
return 1
