-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: node.
local held = call('node', 'GET', KEYS[1])
if not held then
  return false
end
local epoch, site, accepting = string.match(held, '^1 (%d+) (%S+) ([01])$')
if not epoch then
  broken('node')
end
return { epoch, site, accepting }
