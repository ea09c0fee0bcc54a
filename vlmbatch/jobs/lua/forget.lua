-- Removes the first finished jobs of a batch, once their results are stored elsewhere. Returns how many.
-- KEYS: the finished jobs of the batch
-- ARGV: the start of the keys of jobs, of results, and of registries of finished jobs, then the ids in order
local gone = 0
for number = 4, #ARGV do
    local id = ARGV[number]
    if redis.call('LINDEX', KEYS[1], 0) ~= id then -- Redis has lost its last writes, and gives the ids once more
        break
    end
    redis.call('LPOP', KEYS[1])
    local queue = redis.call('HGET', ARGV[1] .. id, 'origin')
    if queue then
        redis.call('ZREM', ARGV[3] .. queue, id)
    end
    redis.call('DEL', ARGV[1] .. id, ARGV[2] .. id)
    gone = gone + 1
end
return gone
