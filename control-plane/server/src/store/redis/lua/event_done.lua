-- SPDX-License-Identifier: EUPL-1.2
-- ARGV: id, greatest age.
expire(tonumber(ARGV[2]))
if call('events', 'ZSCORE', ORDER, ARGV[1]) then
  remove(ARGV[1], read_event(ARGV[1]))
end
return 1
