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

# What goes in and comes out is MessagePack. KEYS: those of all requests, one after the other. ARGV: lease in ms,
# process, and for each request its holder and for each of its keys the kind (r, l), the limit, the amount, what this
# process knows of the key (r: the generation, or nothing; l: how many it holds), and what to put back where Redis has
# lost it (r: slot:amount,…; l: holder,…; or nothing). Without a holder it only looks.
# Gives for each request: place of the claim that refuses, 0, or -1 where something is to be put back first; ms to wait
# or -1, slot; then for each claim: used; ms until it is whole; generation.
RESERVE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = math.floor(now / 100)
local first = slot - 600
local asked = cmsgpack.unpack(ARGV[1])
local lease, mine = asked[1], 'b:' .. asked[2]

local function whole(number) return string.format('%.0f', number) end

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

-- False where the key is lost, and nothing is there that could be put back.
local function restore(key, kind, known, back)
  local lost
  if kind == 'l' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    lost = redis.call('ZCARD', key) < known
  else
    local has = redis.call('HMGET', key, 'g', mine)
    lost = known ~= '' and has[1] ~= known and has[2] ~= known
  end
  if not lost then return true end
  if back == '' then return false end
  if kind == 'l' then
    for holder in string.gmatch(back, '[^,]+') do redis.call('ZADD', key, now + lease, holder) end
    redis.call('PEXPIRE', key, lease + 1000)
  else
    put_back_rate(key, back)
    redis.call('HSET', key, mine, known)
  end
  return true
end

-- What is used, ms until it is whole, generation.
local function look(key, kind)
  if kind == 'l' then return redis.call('ZCARD', key), 0, '' end
  local known = redis.call('HMGET', key, 's', 'o', 'n', 'g')
  local sum, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or slot), tonumber(known[3] or slot)
  local generation = known[4] or ''
  if newest < first then
    if known[1] then redis.call('DEL', key) end
    sum, generation = 0, ''
  elseif oldest < first then
    local gone = {}
    for s = oldest, first - 1 do gone[#gone + 1] = s end
    for _, amount in ipairs(redis.call('HMGET', key, unpack(gone))) do sum = sum - tonumber(amount or 0) end
    redis.call('HDEL', key, unpack(gone))
    redis.call('HSET', key, 's', sum, 'o', first)
  end
  return sum, sum > 0 and math.max((newest + 601) * 100 - now, 0) or 0, generation
end

local function wait(key, kind, excess)
  if kind == 'l' then return 1000 end
  local slots = {}
  for s = math.max(tonumber(redis.call('HGET', key, 'o') or slot), first), slot do slots[#slots + 1] = s end
  for place, found in ipairs(redis.call('HMGET', key, unpack(slots))) do
    excess = excess - tonumber(found or 0)
    if excess <= 0 then return (slots[place] + 601) * 100 - now end
  end
  return 60000
end

local function take(key, kind, amount, generation, holder)
  if kind == 'l' then
    redis.call('ZADD', key, now + lease, holder)
    redis.call('PEXPIRE', key, lease + 1000)
    return 0, ''
  end
  redis.call('HINCRBY', key, slot, whole(amount))
  redis.call('HINCRBY', key, 's', whole(amount))
  redis.call('HSETNX', key, 'o', slot)
  redis.call('HSET', key, 'n', slot)
  if generation == '' then
    generation = time[1] .. '.' .. time[2]
    redis.call('HSET', key, 'g', generation)
  end
  redis.call('PEXPIRE', key, 61000)
  return 60100, generation
end

local function decide(holder, claims, before)
  for i, claim in ipairs(claims) do
    if not restore(KEYS[before + i], claim[1], claim[4], claim[5]) then return {-1, -1, slot, {}, {}, {}} end
  end
  local used, resets, generations = {}, {}, {}
  local refused, waits = 0, -1
  for i, claim in ipairs(claims) do
    local key, kind, limit, amount = KEYS[before + i], claim[1], claim[2], claim[3]
    used[i], resets[i], generations[i] = look(key, kind)
    if refused == 0 and used[i] + amount > limit then
      refused, waits = i, wait(key, kind, used[i] + amount - limit)
    end
  end
  if refused == 0 and holder ~= '' then
    for i, claim in ipairs(claims) do
      used[i] = used[i] + claim[3]
      resets[i], generations[i] = take(KEYS[before + i], claim[1], claim[3], generations[i], holder)
    end
  end
  return {refused, waits, slot, used, resets, generations}
end

local answers, before = {}, 0
for n, request in ipairs(asked[3]) do
  answers[n] = decide(request[1], request[2], before)
  before = before + #request[2]
end
return cmsgpack.pack(answers)
""")

# MessagePack, too. KEYS: those of all requests, one after the other. ARGV: for each request its holder, its slot, and
# for each of its keys the kind, how much more was taken than claimed, and the generation of the key in which that is;
# where Redis has lost it, it will be put back as it is.
SETTLE = Script("""
local before = 0
for _, request in ipairs(cmsgpack.unpack(ARGV[1])) do
  local holder, slot, rows = request[1], request[2], request[3]
  for i, row in ipairs(rows) do
    local key, kind, more, generation = KEYS[before + i], row[1], row[2], row[3]
    if kind == 'l' then
      redis.call('ZREM', key, holder)
    elseif more ~= 0 and redis.call('HGET', key, 'g') == generation and redis.call('HEXISTS', key, slot) == 1 then
      local amount = string.format('%.0f', more)
      redis.call('HINCRBY', key, slot, amount)
      redis.call('HINCRBY', key, 's', amount)
    end
  end
  before = before + #rows
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
