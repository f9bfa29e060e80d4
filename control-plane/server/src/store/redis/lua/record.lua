-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: records. ARGV: id.
local raw = call('records', 'HGET', KEYS[1], ARGV[1])
if not raw then
  return false
end
local record = read_record(raw)
if not record then
  broken('records')
end
return record
