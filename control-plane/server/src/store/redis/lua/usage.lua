-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats, due, use. ARGV: fields.
sweep()
local answers = {}
if #ARGV > 0 then
  for index, text in ipairs(call('use', 'HMGET', USE, unpack(ARGV))) do
    local sum = parse_sum(text)
    for number = 1, 4 do
      sum[number] = whole(sum[number])
    end
    answers[index] = sum
  end
end
return answers
