-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: room. ARGV: epoch, former epoch or '', former site, former node.
local stored = read_room(KEYS[1])
if stored and stored.epoch == ARGV[1] then
  if ARGV[2] == '' then
    call('room', 'DEL', KEYS[1])
  else
    stored.epoch, stored.site, stored.node, stored.request = ARGV[2], ARGV[3], ARGV[4], '-'
    write_head(KEYS[1], stored)
  end
end
return 1
