-- Gives a role up, if the caller has it.
-- KEYS: the role
-- ARGV: the token of the caller
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
