-- SPDX-License-Identifier: EUPL-1.2
-- Events of one queue. KEYS: order, events. The empty field has the bytes of all bodies.
local ORDER, EVENTS = KEYS[1], KEYS[2]

local function read_event(id)
  local raw = call('events', 'HGET', EVENTS, id)
  local read, value = pcall(cmsgpack.unpack, raw or '')
  if not read or type(value) ~= 'table' or value[1] ~= 1 or not counted(value[5]) then
    broken('events')
  end
  for index = 2, 4 do
    if type(value[index]) ~= 'string' then
      broken('events')
    end
  end
  return { name = value[2], queued = value[3], body = value[4], at = value[5] }
end

local function bytes_of_all()
  local bytes = counted(call('events', 'HGET', EVENTS, '') or '0')
  if not bytes then
    broken('events')
  end
  return bytes
end

local function remove(id, event)
  local left = math.max(0, bytes_of_all() - #event.body)
  call('events', 'ZREM', ORDER, id)
  call('events', 'HDEL', EVENTS, id)
  if call('events', 'ZCARD', ORDER) == 0 then
    call('events', 'DEL', EVENTS)
  else
    call('events', 'HSET', EVENTS, '', whole(left))
  end
end

local function first()
  local id = call('events', 'ZRANGE', ORDER, 0, 0)[1]
  return id, id and read_event(id)
end

local function expire(age)
  local dropped = 0
  local id, event = first()
  while id and now - event.at >= age do
    remove(id, event)
    dropped = dropped + 1
    id, event = first()
  end
  return dropped
end
