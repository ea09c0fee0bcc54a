-- Cancels a job that has no result. Returns its status before that, or false if there is no such job.
-- KEYS: the job, the queue, the registries of started and of cancelled jobs, the batch, its open jobs
-- ARGV: the id, the time as a text, the seconds to keep it, 1 if it belongs to a batch, 1 to let started jobs go on,
-- 1 to remove it from the list of its queue
local found = redis.call('HMGET', KEYS[1], 'status', 'vlmbatch_lease')
local status = found[1]
if not status then
    return false
end
if status ~= 'queued' and (status ~= 'started' or ARGV[5] == '1') then
    return status
end
if found[2] then
    redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. found[2])
end
if ARGV[6] == '1' then
    redis.call('LREM', KEYS[2], 1, ARGV[1])
end
local keep = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], keep)
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now) -- those that have expired
redis.call('ZADD', KEYS[4], now + keep, ARGV[1])
if ARGV[4] == '1' then
    redis.call('SREM', KEYS[6], ARGV[1])
    redis.call('HINCRBY', KEYS[5], 'cancelled', 1)
end
return status
