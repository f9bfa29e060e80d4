-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: failures. ARGV: '1' to count one more, life of a counter.
local text = call('failures', 'GET', KEYS[1])
local count, last = 0, now
if text then
  local counted, at = string.match(text, '^1 (%d+) (%d+)$')
  if not counted then
    broken('failures')
  end
  count, last = tonumber(counted), tonumber(at)
end
if ARGV[1] == '1' then
  count, last = math.min(count + 1, 4294967295), now
  call('failures', 'SET', KEYS[1], table.concat({ '1', whole(count), whole(last) }, ' '), 'PX', lasting(ARGV[2]))
end
return { whole(count), whole(math.max(0, now - last)) }
