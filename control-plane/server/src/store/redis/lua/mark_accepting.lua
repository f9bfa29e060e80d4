-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: closed. ARGV: '1' if the node accepts, life of a mark.
if ARGV[1] == '1' then
  call('closed', 'DEL', KEYS[1])
else
  call('closed', 'SET', KEYS[1], '1', 'PX', lasting(ARGV[2]))
end
return 1 - call('closed', 'EXISTS', KEYS[1])
