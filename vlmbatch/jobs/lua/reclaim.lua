-- Moves jobs whose leases have expired back to the front of their queue, since their workers died.
-- Returns those whose workers died too often: for each job its id, its lease and its data. Their leases are made
-- longer, so that one caller has the time to give them a result.
-- KEYS: the queue, the registry of started jobs
-- ARGV: the most deaths, the start of the keys of jobs, the seconds of the lease
local now = tonumber(redis.call('TIME')[1])
local dead = {}
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)) do
    local id, lease = string.match(entry, '^([^:]*):(.*)$')
    local job = ARGV[2] .. (id or '')
    local found = redis.call('HMGET', job, 'status', 'vlmbatch_lease', 'data')
    if id and found[1] == 'started' and found[2] == lease then
        if redis.call('HINCRBY', job, 'vlmbatch_deaths', 1) < tonumber(ARGV[1]) then
            redis.call('ZREM', KEYS[2], entry)
            redis.call('HSET', job, 'status', 'queued')
            redis.call('LPUSH', KEYS[1], id)
        else
            redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), entry)
            table.insert(dead, {id, lease, found[3]})
        end
    else
        redis.call('ZREM', KEYS[2], entry)
    end
end
return dead
