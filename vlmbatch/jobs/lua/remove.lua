-- Removes a job that has ended, and its result.
-- KEYS: the job, its results, the registries of finished and of failed jobs
-- ARGV: the id
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'finished' and status ~= 'failed' then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
