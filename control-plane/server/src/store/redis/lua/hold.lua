-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use, room, closed of each choice. ARGV: name, strategy, amount (4), limits (4), lifetime, number of choices, choices.
local room, spread = ARGV[1], ARGV[2] == 'Spread'
local rooms, participants, egress = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local expires = now + tonumber(ARGV[11])
local choices = choices_from(13, 5, tonumber(ARGV[12]))
local stored = read_room(KEYS[4])
sweep()
local seat = open_seat(room)
local wanted = stored and stored.node or (seat.held[1] and seat.held[1][1])
local function change(node)
  return with(seat, nil, { { node, expires, rooms, participants, egress } })
end
local chosen, why = choose(seat, choices, spread, wanted, 0, limits_from(7), change)
if not chosen then
  return why and { 'Refused', why } or { 'NotAccepting' }
end
adopt(seat, change(choices[chosen].node))
save_seat(seat)
return { 'Held', whole(chosen) }
