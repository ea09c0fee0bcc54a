-- Takes or keeps a role. Returns 1 if the caller has it, else 0.
-- KEYS: the role
-- ARGV: the token of the caller, and for how many seconds it has the role
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[1]) -- after this write, Redis sets the role although its memory is full
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
