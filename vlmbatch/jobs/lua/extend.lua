-- Makes leases longer. Returns the ids of the jobs that this worker no longer has.
-- KEYS: for each job its key, then for each job the registry of started jobs
-- ARGV: the seconds of the lease, the time as a text, then for each job its id and its lease
local jobs = #KEYS / 2
local expires = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[1])
local lost = {}
for number = 1, jobs do
    local id, lease = ARGV[number * 2 + 1], ARGV[number * 2 + 2]
    local found = redis.call('HMGET', KEYS[number], 'status', 'vlmbatch_lease')
    if found[1] == 'started' and found[2] == lease then
        redis.call('ZADD', KEYS[jobs + number], expires, id .. ':' .. lease)
        redis.call('HSET', KEYS[number], 'last_heartbeat', ARGV[2])
    else
        redis.call('ZREM', KEYS[jobs + number], id .. ':' .. lease)
        table.insert(lost, id)
    end
end
return lost
