-- SPDX-License-Identifier: EUPL-1.2
-- ARGV: greatest age, how many at most.
expire(tonumber(ARGV[1]))
local answers, most = {}, tonumber(ARGV[2])
if most > 0 then
  for _, id in ipairs(call('events', 'ZRANGE', ORDER, 0, most - 1)) do
    local event = read_event(id)
    answers[#answers + 1] = { id, event.name, event.queued, event.body }
  end
end
return answers
