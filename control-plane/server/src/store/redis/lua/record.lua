-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: records. ARGV: id.
local raw = call('records', 'HGET', KEYS[1], ARGV[1])
if not raw then
  return false
end
local read, value = pcall(cmsgpack.unpack, raw)
if not read or type(value) ~= 'table' or value[1] ~= 1 or type(value[4]) ~= 'string' then
  broken('records')
end
return { value[2], value[3], value[4] }
