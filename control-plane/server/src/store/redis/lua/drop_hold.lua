-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use. ARGV: name.
local seat = load_seat(ARGV[1])
seat.held = {}
save_seat(seat)
return 1
