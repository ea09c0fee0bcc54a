-- Returns the fingerprint and the settings of the run of a batch. The first worker gives them.
-- KEYS: the batch
-- ARGV: the digest of the question, the fingerprint, the settings
if redis.call('HGET', KEYS[1], 'question') ~= ARGV[1] then
    return {ARGV[2], ARGV[3]}
end
redis.call('HSETNX', KEYS[1], 'run', ARGV[2])
redis.call('HSETNX', KEYS[1], 'settings', ARGV[3])
return redis.call('HMGET', KEYS[1], 'run', 'settings')
