-- Messages delivered longer ago than the visibility timeout, newest first, by this server's clock.
-- KEYS: unacked, index. ARGV: visibility timeout in seconds, most. Returns {ceiling, tag, score, entry or false, ...}.
local now = redis.call('TIME')
local ceiling = string.format('%.6f', now[1] + now[2] / 1000000 - tonumber(ARGV[1]))
local out = {ceiling}
local due = redis.call('ZRANGE', KEYS[2], ceiling, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
for i = 1, #due, 2 do
  out[#out + 1] = due[i]
  out[#out + 1] = due[i + 1]
  out[#out + 1] = redis.call('HGET', KEYS[1], due[i])
end
return out
