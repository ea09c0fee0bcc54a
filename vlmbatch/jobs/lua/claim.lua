-- Takes the first jobs of these queues, in the order of the queues, under a lease.
-- Returns for each job its id, its lease, its queue and its data.
-- KEYS: the queues, then the registry of started jobs of each queue
-- ARGV: the most jobs, the seconds of the lease, the start of their keys, the name of the worker, the time as a
-- text, and the first part of the names of the leases
redis.call('SETRANGE', 'vlmbatch:format', 0, '') -- changes nothing; fails if the memory of Redis is full
local queues = #KEYS / 2
local left = tonumber(ARGV[1])
local now = redis.call('TIME')
local expires = tonumber(now[1]) + tonumber(ARGV[2])
local claims = {}
for number = 1, queues do
    while left > 0 do
        local id = redis.call('LPOP', KEYS[number])
        if not id then
            break
        end
        local job = ARGV[3] .. id
        local found = redis.call('HMGET', job, 'status', 'data')
        if found[1] == 'queued' and found[2] then -- others were cancelled, or have their result already
            local lease = ARGV[6] .. '-' .. left
            redis.call('ZADD', KEYS[queues + number], expires, id .. ':' .. lease)
            redis.call('HSET', job, 'status', 'started', 'started_at', ARGV[5], 'last_heartbeat', ARGV[5],
                'worker_name', ARGV[4], 'vlmbatch_lease', lease)
            table.insert(claims, {id, lease, number - 1, found[2]})
            left = left - 1
        end
    end
end
return claims
