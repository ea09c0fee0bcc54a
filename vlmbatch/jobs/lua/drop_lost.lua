-- Removes those of these open jobs that Redis has lost, or that no worker can read. Returns how many.
-- KEYS: the batch, its open jobs
-- ARGV: the start of the keys of jobs, then the ids
local lost = 0
for number = 2, #ARGV do
    local status = redis.call('HGET', ARGV[1] .. ARGV[number], 'status')
    if status ~= 'queued' and status ~= 'started' and redis.call('SREM', KEYS[2], ARGV[number]) == 1 then
        redis.call('HINCRBY', KEYS[1], 'total', -1)
        lost = lost + 1
    end
end
return lost
