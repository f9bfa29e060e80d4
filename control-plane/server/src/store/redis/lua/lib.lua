-- SPDX-License-Identifier: EUPL-1.2
-- What all scripts share. A script reads and checks everything before it writes anything: an error never leaves half a step behind.

local function broken(family)
  error({ err = 'BROKEN ' .. family })
end

-- Calls a command on a key of a family; a value of another type is not Plenum's.
local function call(family, ...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, 'WRONGTYPE', 1, true) then
      broken(family)
    end
    error(answer)
  end
  return answer
end

local time = call('clock', 'TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A whole number from none to what Lua counts exactly; nil for anything else.
local function counted(value)
  if type(value) == 'string' then
    value = string.match(value, '^%d+$') and tonumber(value)
  end
  if type(value) == 'number' and value >= 0 and value < 9007199254740992 and value == math.floor(value) then
    return value
  end
  return nil
end

local function whole(number)
  return string.format('%.0f', number)
end

-- A key of Redis still lives in the millisecond in which it runs out.
local function lasting(millis)
  return whole(math.max(1, tonumber(millis) - 1))
end

-- Epochs are texts of 20 digits: a number of 64 bits does not fit into Lua's.
local function next_epoch(epoch)
  if epoch >= '18446744073709551615' then
    return nil
  end
  local head, nines = string.match(epoch, '^(%d-)(9*)$')
  local last = string.byte(head, -1) - 48
  return string.sub(head, 1, -2) .. (last + 1) .. string.rep('0', #nines)
end

-- The head of a room's record: who owns it since when, by which request, in which wanted pool.
local function read_room(key)
  local head = call('room', 'HGET', key, 'head')
  if not head then
    if call('room', 'EXISTS', key) == 1 then
      broken('room')
    end
    return nil
  end
  local epoch, site, node, given, life, request, pool =
    string.match(head, '^1 (%d+) (%S+) (%S+) (%d+) (%d+) (%S+) (%S+)$')
  -- A life beyond ten digits of milliseconds is none that Plenum gives.
  if not epoch or #epoch ~= 20 or not counted(given) or #life > 10 then
    broken('room')
  end
  return {
    epoch = epoch, site = site, node = node, given = tonumber(given), life = tonumber(life), request = request, pool = pool,
  }
end

local function write_head(key, room)
  local head = { '1', room.epoch, room.site, room.node, whole(room.given), whole(room.life), room.request, room.pool }
  call('room', 'HSET', key, 'head', table.concat(head, ' '))
end

-- A record's epoch, revision and value, or nil.
local function read_record(raw)
  local read, value = pcall(cmsgpack.unpack, raw or '')
  if not read or type(value) ~= 'table' or value[1] ~= 1 then
    return nil
  end
  for index = 2, 4 do
    if type(value[index]) ~= 'string' then
      return nil
    end
  end
  return { value[2], value[3], value[4] }
end

-- A room as it is answered: epoch, site, node, age, pool, policy, facts.
local function answer_room(key, room)
  local body = call('room', 'HMGET', key, 'policy', 'facts')
  if not body[1] or not body[2] then
    broken('room')
  end
  return { room.epoch, room.site, room.node, whole(math.max(0, now - room.given)), room.pool, body[1], body[2] }
end
