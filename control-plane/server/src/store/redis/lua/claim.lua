-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: claim. ARGV: holder, life.
local held = call('claim', 'GET', KEYS[1])
local holder = held and string.match(held, '^1 (.*)$')
if held and not holder then
  broken('claim')
end
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  call('claim', 'DEL', KEYS[1])
  return 0
end
call('claim', 'SET', KEYS[1], '1 ' .. ARGV[1], 'PX', lasting(ARGV[2]))
return 1
