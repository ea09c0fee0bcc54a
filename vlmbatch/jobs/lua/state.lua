-- Returns the fields of a batch, how many of its jobs are open and how many are finished, and 1 if a program fills it.
-- It is a script, since a transaction is refused while the memory of Redis is full.
-- KEYS: the batch, its open jobs, its finished jobs, the role of a program that fills it
return {
    redis.call('HGETALL', KEYS[1]),
    redis.call('SCARD', KEYS[2]),
    redis.call('LLEN', KEYS[3]),
    redis.call('EXISTS', KEYS[4]),
}
