-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: index, records. ARGV: the id after which the page begins or '', most records, bytes after which the page ends.
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local ids = call('records', 'ZRANGE', KEYS[1], from, '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
local page, bytes = {}, 0
for _, id in ipairs(ids) do
  local raw = call('records', 'HGET', KEYS[2], id)
  local record = read_record(raw)
  page[#page + 1] = record and { id, record[1], record[2], record[3] } or { id }
  bytes = bytes + #(raw or '')
  if bytes >= tonumber(ARGV[3]) then
    break
  end
end
return page
