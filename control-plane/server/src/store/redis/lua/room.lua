-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: room.
local stored = read_room(KEYS[1])
return stored and answer_room(KEYS[1], stored) or false
