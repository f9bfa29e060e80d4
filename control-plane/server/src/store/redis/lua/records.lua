-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: index, records. ARGV: the id after which the page begins or '', most records, bytes after which the page ends.
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local ids = call('records', 'ZRANGE', KEYS[1], from, '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
local page, bytes = {}, 0
for _, id in ipairs(ids) do
  local raw = call('records', 'HGET', KEYS[2], id)
  local read, value = pcall(cmsgpack.unpack, raw or '')
  if read and type(value) == 'table' and value[1] == 1 and type(value[4]) == 'string' then
    page[#page + 1] = { id, value[2], value[3], value[4] }
  else
    page[#page + 1] = { id }
  end
  bytes = bytes + #(raw or '')
  if bytes >= tonumber(ARGV[3]) then
    break
  end
end
return page
