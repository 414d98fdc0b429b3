-- Takes the lock for a turn of the caller's, where it is free or of a turn of the caller's before.
--
-- KEYS: the lock
-- ARGV: the relay, the token of its turn, which begins with the relay, lease in ms
-- Answers whether the lock is the turn's.

local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
