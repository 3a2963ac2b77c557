"""What Redis does for the counters, each in one call and as a whole.

A rate is a hash: C{<slot>} to what was used in that tenth of a second, C{s} their sum, C{o} the first slot that can be
there, C{n} the last, C{g} its generation: a word that is lost with the key, so that a process which remembers another
one knows that Redis has lost the key since, and puts back what it has used itself; C{b:<process>} the generation from
which that process has done so. A lease is a sorted set: who holds it, until when (milliseconds). The time is the
server's, so that all processes have the same. Every key expires by itself, but the epoch, a word that is lost when
everything is.
"""

from __future__ import annotations

from llmproxy.redis import Script

# KEYS: one for each claim. ARGV: holder, lease in ms, process; then for each claim its kind (r, l), limit, amount, what
# this process knows of the key (r: the generation, or nothing; l: how many it holds), and what to put back where Redis
# has lost it (r: slot:amount,…; l: holder,…; or nothing). Without a holder it only looks.
# Gives: place of the claim that refuses, 0, or -1 where something is to be put back first; ms to wait or -1, slot; then
# for each claim: used, ms until it is whole, generation.
RESERVE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = math.floor(now / 100)
local first = slot - 600
local looking = ARGV[1] == ''
local mine = 'b:' .. ARGV[3]
local used, resets, generations = {}, {}, {}

local function put_back_rate(key, amounts)
  local known = redis.call('HMGET', key, 's', 'o', 'n')
  local sum, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or slot), tonumber(known[3] or first)
  for at, amount in string.gmatch(amounts, '(%d+):(-?%d+)') do
    at = tonumber(at)
    if at >= first and at <= slot then
      redis.call('HINCRBY', key, at, amount)
      sum, oldest, newest = sum + amount, math.min(oldest, at), math.max(newest, at)
    end
  end
  redis.call('HSET', key, 's', sum, 'o', oldest, 'n', math.max(newest, first))
  redis.call('HSETNX', key, 'g', time[1] .. '.' .. time[2])
  redis.call('PEXPIRE', key, 61000)
end

for i, key in ipairs(KEYS) do
  local kind, known, back = ARGV[i * 5 - 1], ARGV[i * 5 + 2], ARGV[i * 5 + 3]
  local lost
  if kind == 'l' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    lost = redis.call('ZCARD', key) < tonumber(known)
  else
    local has = redis.call('HMGET', key, 'g', mine)
    lost = known ~= '' and has[1] ~= known and has[2] ~= known
  end
  if lost and back == '' then return {-1, -1, slot} end
  if lost and kind == 'l' then
    for holder in string.gmatch(back, '[^,]+') do redis.call('ZADD', key, now + ARGV[2], holder) end
    redis.call('PEXPIRE', key, ARGV[2] + 1000)
  elseif lost then
    put_back_rate(key, back)
    redis.call('HSET', key, mine, known)
  end
end

local function look(i, key, kind)
  resets[i], generations[i] = 0, ''
  if kind == 'l' then
    used[i] = redis.call('ZCARD', key)
    return
  end
  local known = redis.call('HMGET', key, 's', 'o', 'n', 'g')
  local sum, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or slot), tonumber(known[3] or slot)
  generations[i] = known[4] or ''
  if newest < first then
    if known[1] then redis.call('DEL', key) end
    sum, generations[i] = 0, ''
  elseif oldest < first then
    local gone = {}
    for s = oldest, first - 1 do gone[#gone + 1] = s end
    for _, amount in ipairs(redis.call('HMGET', key, unpack(gone))) do sum = sum - tonumber(amount or 0) end
    redis.call('HDEL', key, unpack(gone))
    redis.call('HSET', key, 's', sum, 'o', first)
  end
  used[i] = sum
  if sum > 0 then resets[i] = math.max((newest + 601) * 100 - now, 0) end
end

local function wait(i, key, kind, limit, amount)
  if kind == 'l' then return 1000 end
  local slots = {}
  for s = math.max(tonumber(redis.call('HGET', key, 'o') or slot), first), slot do slots[#slots + 1] = s end
  local excess = used[i] + amount - limit
  for place, found in ipairs(redis.call('HMGET', key, unpack(slots))) do
    excess = excess - tonumber(found or 0)
    if excess <= 0 then return (slots[place] + 601) * 100 - now end
  end
  return 60000
end

local refused, waits = 0, -1
for i, key in ipairs(KEYS) do
  local kind, limit, amount = ARGV[i * 5 - 1], tonumber(ARGV[i * 5]), tonumber(ARGV[i * 5 + 1])
  look(i, key, kind)
  if refused == 0 and used[i] + amount > limit then
    refused, waits = i, wait(i, key, kind, limit, amount)
  end
end
if refused == 0 and not looking then
  for i, key in ipairs(KEYS) do
    local kind, amount = ARGV[i * 5 - 1], ARGV[i * 5 + 1]
    used[i] = used[i] + tonumber(amount)
    if kind == 'l' then
      redis.call('ZADD', key, now + ARGV[2], ARGV[1])
      redis.call('PEXPIRE', key, ARGV[2] + 1000)
    else
      redis.call('HINCRBY', key, slot, amount)
      redis.call('HINCRBY', key, 's', amount)
      redis.call('HSETNX', key, 'o', slot)
      redis.call('HSET', key, 'n', slot)
      if generations[i] == '' then
        generations[i] = time[1] .. '.' .. time[2]
        redis.call('HSET', key, 'g', generations[i])
      end
      redis.call('PEXPIRE', key, 61000)
      resets[i] = 60100
    end
  end
end
local answer = {refused, waits, slot}
for i = 1, #KEYS do
  answer[#answer + 1] = used[i]
  answer[#answer + 1] = resets[i]
  answer[#answer + 1] = generations[i]
end
return answer
""")

# KEYS: one for each claim. ARGV: holder, slot; then for each claim its kind, how much more was taken than claimed, and
# the generation of the key in which that is; where Redis has lost it, it will be put back as it is.
SETTLE = Script("""
for i, key in ipairs(KEYS) do
  local kind, more, generation = ARGV[i * 3], ARGV[i * 3 + 1], ARGV[i * 3 + 2]
  if kind == 'l' then
    redis.call('ZREM', key, ARGV[1])
  elseif more ~= '0' and redis.call('HGET', key, 'g') == generation and redis.call('HEXISTS', key, ARGV[2]) == 1 then
    redis.call('HINCRBY', key, ARGV[2], more)
    redis.call('HINCRBY', key, 's', more)
  end
end
""")

# KEYS: the epoch, where processes are counted, then one lease for each that is held. ARGV: lease in ms, process; then
# who holds each. Gives how many processes there are, and the epoch.
RENEW = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SETNX', KEYS[1], time[1] .. '.' .. time[2])
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], now + ARGV[1], ARGV[i])
  redis.call('PEXPIRE', KEYS[i], ARGV[1] + 1000)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
return {redis.call('ZCARD', KEYS[2]), redis.call('GET', KEYS[1])}
""")
