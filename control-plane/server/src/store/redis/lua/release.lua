-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use. ARGV: name, request.
local seat = load_seat(ARGV[1])
local kept = {}
for _, entry in ipairs(seat.reserved) do
  if entry[1] ~= ARGV[2] then
    kept[#kept + 1] = entry
  end
end
seat.reserved = kept
save_seat(seat)
return 1
