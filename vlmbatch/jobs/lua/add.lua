-- Puts a job into its queue, unless a job with its id waits, is in progress, or has a result. Returns 1 for a new job, else 0.
-- KEYS: the job, its results, the queue, the set of queues, the batch, the open jobs of the batch
-- ARGV: the id, 1 if it belongs to a batch, and the fields and values of the job
local status = redis.call('HGET', KEYS[1], 'status')
if status and status ~= 'canceled' and status ~= 'failed' then
    return 0
end
if status then
    redis.call('DEL', KEYS[1], KEYS[2])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('SADD', KEYS[4], KEYS[3])
redis.call('RPUSH', KEYS[3], ARGV[1])
if ARGV[2] == '1' then
    if redis.call('SADD', KEYS[6], ARGV[1]) == 1 then -- else the batch counts it already, and Redis had lost it
        redis.call('HINCRBY', KEYS[5], 'total', 1)
    end
end
return 1
