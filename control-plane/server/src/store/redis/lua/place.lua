-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use, room, closed of each choice. ARGV: name, request, strategy, amount (4), limits (4), replaces, highest epoch that
-- the caller knows, life, pool, policy, facts, reservation's life, bounds of reservations (2), bound of rooms, number of choices, choices.
local room, request, spread = ARGV[1], ARGV[2], ARGV[3] == 'Spread'
local rooms, participants, publishers, egress = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local limits = limits_from(8)
local replaces, highest, life = ARGV[12], ARGV[13], tonumber(ARGV[14])
local pool, policy, facts = ARGV[15], ARGV[16], ARGV[17]
local expires = now + tonumber(ARGV[18])
local choices = choices_from(23, 5, tonumber(ARGV[22]))

local stored = read_room(KEYS[4])
if stored and stored.request == request then
  return { 'Again', answer_room(KEYS[4], stored) }
end
if stored and stored.epoch ~= replaces then
  return { 'Held', answer_room(KEYS[4], stored) }
end
if stored and stored.epoch > highest then
  highest = stored.epoch
end
local epoch = next_epoch(highest)
if not epoch then
  return { 'EpochsExhausted' }
end
sweep()
local seat = open_seat(room)
if not stored and call('seats', 'HLEN', SEATS) >= tonumber(ARGV[21]) then
  return { 'Full', 'rooms' }
end
local full = bounded(seat, tonumber(ARGV[19]), tonumber(ARGV[20]))
if full then
  return { 'Refused', full }
end
local held = seat.held[1]
local function change(node)
  local entry = { request, node, expires, rooms, participants, egress }
  local keeps = held and held[1] == node
  return with(seat, appended(seat.reserved, entry), not keeps and {} or nil)
end
local chosen, why = choose(seat, choices, spread, held and held[1], publishers, limits, change)
if not chosen then
  return why and { 'Refused', why } or { 'NotAccepting' }
end
local choice = choices[chosen]
if stored then
  facts = call('room', 'HGET', KEYS[4], 'facts')
  if not facts then
    broken('room')
  end
end
adopt(seat, change(choice.node))
save_seat(seat)
write_head(KEYS[4], {
  epoch = epoch, site = choice.site, node = choice.node, given = now, life = life, request = request, pool = pool,
})
call('room', 'HSET', KEYS[4], 'policy', policy, 'facts', facts)
call('room', 'PEXPIRE', KEYS[4], lasting(life))
return { 'Placed', epoch, whole(chosen), stored and facts or false }
