-- SPDX-License-Identifier: EUPL-1.2
-- What rooms take of their nodes and tenants. Three keys live and die together: `seats` has per room what is reported, reserved and held,
-- `due` when the first part of a room runs out, `use` the sums per node and tenant. Mirrors the ledger of control-core.

local SEATS, DUE, USE = KEYS[1], KEYS[2], KEYS[3]
local SWEEP, SLACK = 16, 60000

local function tenant_of(room)
  return string.match(room, '^([^/]*)/')
end

-- Is entry a list of `texts` texts and then `numbers` numbers?
local function shaped(entry, texts, numbers)
  if type(entry) ~= 'table' then
    return false
  end
  for index = 1, texts do
    if type(entry[index]) ~= 'string' then
      return false
    end
  end
  for index = texts + 1, texts + numbers do
    if not counted(entry[index]) then
      return false
    end
  end
  return true
end

-- Entries of a list that have not run out; their time stands behind their texts.
local function alive(list, texts, numbers)
  if type(list) ~= 'table' then
    broken('seats')
  end
  local kept = {}
  for _, entry in ipairs(list) do
    if not shaped(entry, texts, numbers) then
      broken('seats')
    end
    if entry[texts + 1] > now then
      kept[#kept + 1] = entry
    end
  end
  return kept
end

-- reported: { node, expires, participants, publishers, egress }; reserved: { id, node, expires, rooms, participants, egress }, in the order
-- of their making; held: at most one { node, expires, rooms, participants, egress }.
local function unpack_seat(raw)
  if not raw then
    return { reported = {}, reserved = {}, held = {} }
  end
  local read, value = pcall(cmsgpack.unpack, raw)
  if not read or type(value) ~= 'table' or value[1] ~= 1 then
    broken('seats')
  end
  return { reported = value[2], reserved = value[3], held = value[4] }
end

local function uses(seat)
  local sums = {}
  local function at(node)
    local sum = sums[node]
    if not sum then
      sum = { 0, 0, 0, 0 }
      sums[node] = sum
    end
    return sum
  end
  for _, entry in ipairs(seat.reported) do
    local sum = at(entry[1])
    sum[1], sum[2], sum[3], sum[4] = sum[1] + 1, sum[2] + entry[3], sum[3] + entry[4], sum[4] + entry[5]
  end
  for _, entry in ipairs(seat.reserved) do
    local sum = at(entry[2])
    sum[1], sum[2], sum[4] = sum[1] + entry[4], sum[2] + entry[5], sum[4] + entry[6]
  end
  for _, entry in ipairs(seat.held) do
    local sum = at(entry[1])
    sum[1], sum[2], sum[4] = math.max(sum[1], entry[3]), math.max(sum[2], entry[4]), math.max(sum[4], entry[5])
  end
  return sums
end

-- A room's seat as it is stored, with what it counts for, and as it is now.
local function load_seat(room)
  if not tenant_of(room) then
    broken('seats')
  end
  local stored = unpack_seat(call('seats', 'HGET', SEATS, room))
  local seat = {
    reported = alive(stored.reported, 1, 4),
    reserved = alive(stored.reserved, 2, 4),
    held = alive(stored.held, 1, 4),
  }
  seat.room, seat.before, seat.reservations = room, uses(stored), #stored.reserved
  seat.stale = #seat.reported ~= #stored.reported or #seat.reserved ~= #stored.reserved or #seat.held ~= #stored.held
  return seat
end

local function settled(entry)
  return entry[4] == 0 and entry[5] == 0 and entry[6] == 0
end

local function due_of(seat)
  local first, last
  for _, entry in ipairs(seat.reported) do
    first = math.min(first or entry[2], entry[2])
  end
  for _, entry in ipairs(seat.held) do
    first = math.min(first or entry[2], entry[2])
  end
  for _, entry in ipairs(seat.reserved) do
    if settled(entry) then
      last = math.max(last or entry[3], entry[3])
    else
      first = math.min(first or entry[3], entry[3])
    end
  end
  if first and last then
    return math.min(first, last)
  end
  return first or last
end

local function parse_sum(text)
  if not text then
    return { 0, 0, 0, 0 }
  end
  local rooms, participants, publishers, egress = string.match(text, '^1 (%d+) (%d+) (%d+) (%d+)$')
  local sum = { counted(rooms), counted(participants), counted(publishers), counted(egress) }
  if not (sum[1] and sum[2] and sum[3] and sum[4]) then
    broken('use')
  end
  return sum
end

local known_sums = {}

-- Asked for once, however often a step needs it.
local function sum_of(field)
  local sum = known_sums[field]
  if not sum then
    sum = parse_sum(call('use', 'HGET', USE, field))
    known_sums[field] = sum
  end
  return sum
end

local function last_of(seat)
  local last = 0
  for _, entry in ipairs(seat.reported) do
    last = math.max(last, entry[2])
  end
  for _, entry in ipairs(seat.held) do
    last = math.max(last, entry[2])
  end
  for _, entry in ipairs(seat.reserved) do
    last = math.max(last, entry[3])
  end
  return last
end

-- All three keys outlive the latest part of any room: none of them runs out while another still counts on it.
local function keep_until(latest, fresh)
  local deadline = call('seats', 'PEXPIRETIME', SEATS)
  local short = deadline < latest
  if short then
    deadline = latest + SLACK
  end
  if short or (fresh and call('use', 'PEXPIRETIME', USE) == -1) then
    for _, key in ipairs({ SEATS, DUE, USE }) do
      call('ledger', 'PEXPIREAT', key, whole(deadline))
    end
  end
end

-- Writes a seat back and moves the sums by what changed.
local function save_seat(seat)
  local room, after, changes, tenant = seat.room, uses(seat), {}, { 0, 0, 0, 0 }
  local function change(field, by)
    if by[1] ~= 0 or by[2] ~= 0 or by[3] ~= 0 or by[4] ~= 0 then
      local sum = {}
      for index, amount in ipairs(sum_of(field)) do
        sum[index] = math.max(0, amount + by[index])
      end
      changes[#changes + 1] = { field, sum }
    end
  end
  local function move(node, from, to)
    local by = {}
    for index = 1, 4 do
      by[index] = to[index] - from[index]
      tenant[index] = tenant[index] + by[index]
    end
    change('n:' .. node, by)
  end
  local none = { 0, 0, 0, 0 }
  for node, from in pairs(seat.before) do
    move(node, from, after[node] or none)
  end
  for node, to in pairs(after) do
    if not seat.before[node] then
      move(node, none, to)
    end
  end
  change('t:' .. tenant_of(room), tenant)
  change('reservations', { #seat.reserved - seat.reservations, 0, 0, 0 })
  local due, fresh = due_of(seat), false
  if due then
    call('seats', 'HSET', SEATS, room, cmsgpack.pack({ 1, seat.reported, seat.reserved, seat.held }))
    call('due', 'ZADD', DUE, whole(due), room)
  else
    call('seats', 'HDEL', SEATS, room)
    call('due', 'ZREM', DUE, room)
  end
  for _, one in ipairs(changes) do
    local field, sum = one[1], one[2]
    known_sums[field] = sum
    if sum[1] == 0 and sum[2] == 0 and sum[3] == 0 and sum[4] == 0 then
      call('use', 'HDEL', USE, field)
    else
      local text = { '1', whole(sum[1]), whole(sum[2]), whole(sum[3]), whole(sum[4]) }
      fresh = call('use', 'HSET', USE, field, table.concat(text, ' ')) == 1 or fresh
    end
  end
  if due then
    keep_until(last_of(seat), fresh)
  end
  seat.before, seat.reservations = after, #seat.reserved
end

-- A room's seat as it is now, and counted so.
local function open_seat(room)
  local seat = load_seat(room)
  if seat.stale then
    save_seat(seat)
    seat.stale = false
  end
  return seat
end

local function bounded(seat, room_max, all_max)
  local all = #seat.reserved
  if all >= room_max then
    return { 'TooManyReservations', whole(all) }
  end
  all = sum_of('reservations')[1]
  if all >= all_max then
    return { 'TooManyReservations', whole(all) }
  end
  return nil
end

-- Drops what has run out, of a few rooms at a time: each call takes a share. What cannot be read is nobody's any more.
local function sweep()
  local due = call('due', 'ZRANGE', DUE, '-inf', whole(now), 'BYSCORE', 'LIMIT', 0, SWEEP)
  for _, room in ipairs(due) do
    local read, seat = pcall(load_seat, room)
    if read then
      save_seat(seat)
    else
      call('seats', 'HDEL', SEATS, room)
      call('due', 'ZREM', DUE, room)
    end
  end
end

-- limits: rooms, participants, publishers, egress of the tenant, '' = none. capacity: rooms, participants, egress of the node.
local function refusal(name, used, more, max)
  if more > 0 and max and used + more > max then
    return { name, whole(used), whole(max) }
  end
  return nil
end

-- Why a room may not take `after` instead of what it has, or nil. Publishers are checked, but nothing holds them.
local function refused(seat, after, node, capacity, publishers, limits)
  local tenant, of_node = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }
  local function count(sums, sign)
    for on, sum in pairs(sums) do
      for index = 1, 4 do
        tenant[index] = tenant[index] + sign * sum[index]
        if on == node then
          of_node[index] = of_node[index] + sign * sum[index]
        end
      end
    end
  end
  count(after, 1)
  count(seat.before, -1)
  local used, used_of_node = sum_of('t:' .. tenant_of(seat.room)), sum_of('n:' .. node)
  return refusal('TenantRooms', used[1], tenant[1], limits[1])
    or refusal('TenantParticipants', used[2], tenant[2], limits[2])
    or refusal('TenantPublishers', used[3], publishers, limits[3])
    or refusal('TenantEgress', used[4], tenant[4], limits[4])
    or refusal('NodeRooms', used_of_node[1], of_node[1], capacity[1])
    or refusal('NodeParticipants', used_of_node[2], of_node[2], capacity[2])
    or refusal('NodeEgress', used_of_node[4], of_node[4], capacity[3])
end

-- In millionths of the scarcest ceiling.
local function load_of(node, capacity)
  local used = sum_of('n:' .. node)
  local function share(amount, max)
    if amount == 0 then
      return 0
    elseif max == 0 then
      return math.huge
    end
    return math.floor(amount * 1000000 / max)
  end
  return math.max(share(used[1], capacity[1]), share(used[2], capacity[2]), share(used[4], capacity[3]))
end

-- The choice that takes the room, or nil and why. `change` is what a choice would make of the seat; choices: { node, accepting, capacity }.
local function choose(seat, choices, spread, wanted, publishers, limits, change)
  local why
  local function fits(index)
    local choice = choices[index]
    if not choice or not choice.accepting then
      return false
    end
    local reason = refused(seat, uses(change(choice.node)), choice.node, choice.capacity, publishers, limits)
    if not reason then
      return true
    end
    if not why or string.sub(why[1], 1, 6) ~= 'Tenant' then
      why = reason
    end
    return false
  end
  for index, choice in ipairs(choices) do
    if choice.node == wanted then
      if fits(index) then
        return index
      end
      break
    end
  end
  local compared = spread and 2 or 1
  local chosen, lowest
  for index = 1, compared do
    if fits(index) then
      local load = load_of(choices[index].node, choices[index].capacity)
      if not chosen or load < lowest then
        chosen, lowest = index, load
      end
    end
  end
  if chosen then
    return chosen
  end
  for index = compared + 1, #choices do
    if fits(index) then
      return index
    end
  end
  return nil, why
end

local function limits_from(at)
  local limits = {}
  for index = 1, 4 do
    limits[index] = tonumber(ARGV[at + index - 1])
  end
  return limits
end

local function choices_from(at, keys_at, count)
  local choices = {}
  for index = 1, count do
    local from = at + (index - 1) * 5
    choices[index] = {
      site = ARGV[from],
      node = ARGV[from + 1],
      capacity = { tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3]), tonumber(ARGV[from + 4]) },
      accepting = call('closed', 'EXISTS', KEYS[keys_at + index - 1]) == 0,
    }
  end
  return choices
end

-- A seat with other reservations, or another hold.
local function with(seat, reserved, held)
  return { reported = seat.reported, reserved = reserved or seat.reserved, held = held or seat.held }
end

local function appended(list, entry)
  local longer = {}
  for index, one in ipairs(list) do
    longer[index] = one
  end
  longer[#longer + 1] = entry
  return longer
end

local function adopt(seat, after)
  seat.reported, seat.reserved, seat.held = after.reported, after.reserved, after.held
end
