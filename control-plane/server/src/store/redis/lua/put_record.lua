-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: fence, index, records. ARGV: epoch, life of the fence, '1' to keep and '0' to drop; id, revision, value, bound of records, bound of
-- their bytes. The empty field has the bytes of all values.
local fence = call('records', 'GET', KEYS[1])
local highest = fence and string.match(fence, '^1 (%d+)$')
if fence and not highest then
  broken('records')
end
if highest and highest > ARGV[1] then
  return { 'Fenced', highest }
end
local keeps, id = ARGV[3] == '1', ARGV[4]
local total = counted(call('records', 'HGET', KEYS[3], '') or '0')
local before = call('records', 'HSTRLEN', KEYS[3], id)
local known = call('records', 'ZSCORE', KEYS[2], id)
if not total then
  broken('records')
end
if keeps then
  local value = cmsgpack.pack({ 1, ARGV[1], ARGV[5], ARGV[6] })
  total = total - before + #value
  if not known and call('records', 'ZCARD', KEYS[2]) >= tonumber(ARGV[7]) then
    return { 'Full', 'records' }
  end
  if total > tonumber(ARGV[8]) then
    return { 'Full', 'bytes of records' }
  end
  call('records', 'HSET', KEYS[3], id, value, '', whole(total))
  call('records', 'ZADD', KEYS[2], 0, id)
else
  call('records', 'HDEL', KEYS[3], id)
  call('records', 'ZREM', KEYS[2], id)
  total = math.max(0, total - before)
  if total == 0 then
    call('records', 'DEL', KEYS[3])
  else
    call('records', 'HSET', KEYS[3], '', whole(total))
  end
end
call('records', 'SET', KEYS[1], '1 ' .. ARGV[1], 'PX', lasting(ARGV[2]))
return { 'Taken' }
