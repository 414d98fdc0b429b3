-- Appends events to the stream and publishes each, for the one who holds the lock; renews the lock.
--
-- KEYS: the stream, the lock
-- ARGV: token, lease in ms, the stream's last id as the caller knows it, events to keep,
--       the seq above which events are published, then of each event: seq, type, id, the event
-- Answers who may go on ('done', 'moved' or 'fenced') and the stream's last id.

local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = info[i + 1]
    end
  end
end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return {'fenced', last}
end
-- A Redis that was restored from an older copy, or emptied, may still hold the lock.
if last ~= ARGV[3] then
  return {'moved', last}
end
for i = 6, #ARGV, 4 do
  last = ARGV[i] .. '-0'
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], last,
    'type', ARGV[i + 1], 'id', ARGV[i + 2], 'event', ARGV[i + 3])
  if tonumber(ARGV[i]) > tonumber(ARGV[5]) then
    redis.call('PUBLISH', 'lastpong:events:' .. ARGV[i + 1], ARGV[i + 3])
  end
end
-- Last: Redis lets a script that has written go on although its memory is full.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'done', last}
