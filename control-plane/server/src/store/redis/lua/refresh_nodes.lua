-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: node and closed of each lease. ARGV: life of a lease, life of a mark; then per lease: epoch, site, '1' if the node accepts.
for index = 1, #KEYS, 2 do
  local at = 3 + (index - 1) / 2 * 3
  local held = call('node', 'GET', KEYS[index])
  local known = held and string.match(held, '^1 (%d+) %S+ [01]$')
  if held and not known then
    broken('node')
  end
  -- A late word of an earlier life does not shorten the present one.
  if not known or known <= ARGV[at] then
    local lease = table.concat({ '1', ARGV[at], ARGV[at + 1], ARGV[at + 2] }, ' ')
    call('node', 'SET', KEYS[index], lease, 'PX', lasting(ARGV[1]))
  end
  call('closed', 'PEXPIRE', KEYS[index + 1], lasting(ARGV[2]))
end
return 1
