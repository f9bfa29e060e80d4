-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use. ARGV: name, request, node, amount (4), limits (4), capacity (3), reservation's life, bounds of reservations (2).
local room, request, node = ARGV[1], ARGV[2], ARGV[3]
sweep()
local seat = open_seat(room)
for _, entry in ipairs(seat.reserved) do
  if entry[1] == request and entry[2] == node then
    return { 'Reserved' }
  end
end
local full = bounded(seat, tonumber(ARGV[16]), tonumber(ARGV[17]))
if full then
  return { 'Refused', full }
end
local entry = { request, node, now + tonumber(ARGV[15]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7]) }
local after = with(seat, appended(seat.reserved, entry))
local capacity = { tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]) }
local why = refused(seat, uses(after), node, capacity, tonumber(ARGV[6]), limits_from(8))
if why then
  return { 'Refused', why }
end
adopt(seat, after)
save_seat(seat)
return { 'Reserved' }
