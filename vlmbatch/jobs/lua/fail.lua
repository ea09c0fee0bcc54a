-- Moves a job to the failed jobs, since no worker can read its data.
-- KEYS: the job, the registries of started and of failed jobs
-- ARGV: the id, the lease, the reason, the time as a text, the seconds to keep it
redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])
if redis.call('HGET', KEYS[1], 'status') ~= 'started' then
    return 0
end
local keep = tonumber(ARGV[5])
redis.call('HSET', KEYS[1], 'status', 'failed', 'ended_at', ARGV[4], 'exc_info', ARGV[3])
redis.call('EXPIRE', KEYS[1], keep)
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now) -- those that have expired
redis.call('ZADD', KEYS[3], now + keep, ARGV[1])
return 1
