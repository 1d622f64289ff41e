-- Give a token to each device queue that has messages and none. KEYS: where, then lists of any kind.
-- A device queue is recognised by its next message, which names its bell. Returns the number of tokens added.
local where, added = KEYS[1], 0
for i = 2, #KEYS do
  local queue = KEYS[i]
  local at = redis.call('HGET', where, queue)
  if not at or not redis.call('ZSCORE', at .. READY, queue) then
    local head = redis.pcall('LINDEX', queue, -1)
    if type(head) == 'string' then
      local ok, bell = pcall(function() return cjson.decode(head).headers[HEADER] end)
      if not ok or type(bell) ~= 'string' then
        bell = at
      end
      if bell then
        if at and at ~= bell then
          redis.call('ZREM', at .. READY, queue)
        end
        redis.call('HSET', where, queue, bell)
        queue_up(bell, queue)
        ring(bell)
        added = added + 1
      end
    end
  end
end
return added
