-- Stores the first result of a job. Returns 1 if this is the first one, else 0.
-- KEYS: the job, its results, the registries of started and of finished jobs, the batch, its open and its finished jobs
-- ARGV: the id, the lease, the result, the name of the worker, the time as a text, the seconds to keep the result,
-- 1 if the job belongs to a batch, and the count of the batch that grows
-- The first write needs no memory: after it, Redis also runs the others while its memory is full.
redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'status', 'vlmbatch_lease')
if found[1] ~= 'queued' and found[1] ~= 'started' then
    return 0
end
if found[2] then -- the lease of a worker that has the same job
    redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. found[2])
end
local keep = tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
redis.call('XADD', KEYS[2], 'MAXLEN', 10, '*', 'type', 1, 'worker_name', ARGV[4], 'return_value', ARGV[3])
redis.call('EXPIRE', KEYS[2], keep)
redis.call('HSET', KEYS[1], 'status', 'finished', 'ended_at', ARGV[5], 'worker_name', ARGV[4])
redis.call('EXPIRE', KEYS[1], keep)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now) -- those that have expired
redis.call('ZADD', KEYS[4], now + keep, ARGV[1])
if ARGV[7] == '1' then
    redis.call('SREM', KEYS[6], ARGV[1])
    redis.call('RPUSH', KEYS[7], ARGV[1])
    redis.call('HINCRBY', KEYS[5], ARGV[8], 1)
end
return 1
