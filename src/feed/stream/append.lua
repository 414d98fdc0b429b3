-- Appends events to the stream and publishes each, for the one who holds the lock; renews the lock.
--
-- KEYS: the stream, the lock, the mark: the seq up to which events were published or need not be
-- ARGV: token, lease in ms, the stream's last id as the caller knows it, events to keep,
--       what the mark is by what the caller knows, then of each event: seq, type, id, the event
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
-- A stream that is refilled may change its relay halfway. The mark of a stream that is gone may be another log's.
local told = tonumber(ARGV[5])
if last ~= '0-0' then
  told = math.max(told, tonumber(redis.call('GET', KEYS[3]) or 0))
end
for i = 6, #ARGV, 4 do
  last = ARGV[i] .. '-0'
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], last,
    'type', ARGV[i + 1], 'id', ARGV[i + 2], 'event', ARGV[i + 3])
  if tonumber(ARGV[i]) > told then
    redis.call('PUBLISH', 'lastpong:events:' .. ARGV[i + 1], ARGV[i + 3])
    told = tonumber(ARGV[i])
  end
end
if #ARGV > 5 then
  redis.call('SET', KEYS[3], string.format('%.0f', told))
end
-- Last: Redis lets a script that has written go on although its memory is full.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'done', last}
