-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use, room. ARGV: name, epoch, site, node, '1' to keep the record.
if ARGV[5] ~= '1' then
  local stored = read_room(KEYS[4])
  if stored and stored.epoch == ARGV[2] and stored.site == ARGV[3] and stored.node == ARGV[4] then
    call('room', 'DEL', KEYS[4])
  end
end
local seat = load_seat(ARGV[1])
local kept = {}
for _, entry in ipairs(seat.reported) do
  if entry[1] ~= ARGV[4] then
    kept[#kept + 1] = entry
  end
end
seat.reported = kept
save_seat(seat)
return 1
