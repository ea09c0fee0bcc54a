-- Moves a job of a worker back to the front of its queue. Returns 1 if it is there now, else 0.
-- KEYS: the job, the queue, the registry of started jobs
-- ARGV: the id, the lease
redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'status', 'vlmbatch_lease')
if found[1] ~= 'started' or found[2] ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], 'status', 'queued')
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
