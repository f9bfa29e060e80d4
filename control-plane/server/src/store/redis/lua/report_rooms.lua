-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use, one room per report. ARGV: most settled reservations that a room remembers, lifetime of counts without a record,
-- bound of rooms; then per report: name, epoch, site, node, participants, publishers, egress, facts, policy or '', life by that policy.
local kept_max, count_life, rooms_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function settle(seat, node, room_came, came)
  local surplus = -kept_max
  local reserved = {}
  for index, entry in ipairs(seat.reserved) do
    local id, on, expires, rooms, participants, egress = unpack(entry)
    if on == node then
      if room_came then
        rooms = 0
      end
      if came > 0 and participants > 0 then
        came = math.max(0, came - participants)
        participants, egress = 0, 0
      end
    end
    reserved[index] = { id, on, expires, rooms, participants, egress }
    if settled(reserved[index]) then
      surplus = surplus + 1
    end
  end
  seat.reserved = {}
  for _, entry in ipairs(reserved) do
    if surplus > 0 and settled(entry) then
      surplus = surplus - 1
    else
      seat.reserved[#seat.reserved + 1] = entry
    end
  end
end

local function report(key, at)
  local room, epoch, site, node = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local participants, publishers, egress = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local facts, policy, life = ARGV[at + 7], ARGV[at + 8], count_life
  local stored = read_room(key)
  if stored and stored.epoch > epoch then
    return 'F' .. stored.epoch
  end
  local seat = load_seat(room)
  local function reported_by(on)
    for _, entry in ipairs(seat.reported) do
      if entry[1] == on then
        return entry
      end
    end
    return nil
  end
  -- Given twice under one epoch, by two sides that could not hear each other: who has more people keeps it, else the lower id.
  if stored and stored.epoch == epoch and stored.node ~= node then
    local holder = reported_by(stored.node)
    local people = holder and holder[3] or 0
    if people > participants or (people == participants and stored.node < node) then
      return 'F' .. stored.epoch
    end
  end
  if not stored and policy ~= '' and call('seats', 'HLEN', SEATS) >= rooms_max then
    return 'Lrooms'
  end
  local seat = load_seat(room)
  -- Two sides that could not hear each other may have given the same epoch: more people decide, then the lower node.
  if stored and stored.epoch == epoch and stored.node ~= node then
    local people = 0
    for _, entry in ipairs(seat.reported) do
      if entry[1] == stored.node then
        people = entry[3]
      end
    end
    if people > participants or (people == participants and stored.node < node) then
      return 'F' .. stored.epoch
    end
  end
  if stored then
    life = stored.life
    if stored.epoch ~= epoch or stored.site ~= site or stored.node ~= node then
      stored.epoch, stored.site, stored.node, stored.given, stored.request = epoch, site, node, now, '-'
      write_head(key, stored)
    end
    call('room', 'HSET', key, 'facts', facts)
    call('room', 'PEXPIRE', key, lasting(life))
  elseif policy ~= '' then
    life = tonumber(ARGV[at + 9])
    write_head(key, {
      epoch = epoch, site = site, node = node, given = now, life = life, request = '-', pool = '-',
    })
    call('room', 'HSET', key, 'policy', policy, 'facts', facts)
    call('room', 'PEXPIRE', key, lasting(life))
  end
  local before = reported_by(node)
  seat.reported = { { node, now + life, participants, publishers, egress } }
  settle(seat, node, not before, math.max(0, participants - (before and before[3] or 0)))
  save_seat(seat)
  return 'T'
end

sweep()
local answers = {}
for index = 4, #KEYS do
  local done, answer = pcall(report, KEYS[index], 4 + (index - 4) * 10)
  if not done then
    -- Servers differ in whether they hand on the table or its text.
    local text = type(answer) == 'table' and answer.err or tostring(answer)
    local family = string.match(text, '^BROKEN (%S+)')
    if not family then
      error({ err = text })
    end
    answer = 'B' .. family
  end
  answers[#answers + 1] = answer
end
return answers
