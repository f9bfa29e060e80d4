-- SPDX-License-Identifier: EUPL-1.2
-- ARGV: id, name, queued, body, greatest age, bounds of events and bytes.
local id, age = ARGV[1], tonumber(ARGV[5])
local dropped = expire(age)
if call('events', 'ZSCORE', ORDER, id) then
  return whole(dropped)
end
local last = call('events', 'ZRANGE', ORDER, -1, -1, 'WITHSCORES')[2]
local bytes = bytes_of_all() + #ARGV[4]
local event = cmsgpack.pack({ 1, ARGV[2], ARGV[3], ARGV[4], now })
call('events', 'HSET', EVENTS, id, event, '', whole(bytes))
call('events', 'ZADD', ORDER, whole(tonumber(last or '0') + 1), id)
while call('events', 'ZCARD', ORDER) > tonumber(ARGV[6]) or bytes_of_all() > tonumber(ARGV[7]) do
  local oldest, old = first()
  remove(oldest, old)
  dropped = dropped + 1
end
call('events', 'PEXPIRE', ORDER, lasting(age))
call('events', 'PEXPIRE', EVENTS, lasting(age))
return whole(dropped)
