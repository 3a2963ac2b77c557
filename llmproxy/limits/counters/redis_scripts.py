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

# What goes in and comes out is MessagePack. KEYS: each once; the rest says them by their numbers. ARGV: lease in ms,
# process; what is settled of rates: key, slot, generation, how much more was taken than claimed; and of leases: key,
# the numbers of their holders; then limits: for each list of them and each of its limits the key, the kind (r, l), what
# it allows, which of a request's amounts is taken of it, what this process knows of the key (r: the generation, or
# nothing; l: how many it holds), and what to put back where Redis has lost it (r: slot:amount,...; l: holder,...; or
# nothing); then requests: the list of limits, the number, the amounts. Without a number it only looks.
#
# Where Redis has lost a key since, what is settled of it will be put back as it is. Each key is read and written once,
# however many requests there are.
#
# Gives the slot; for each key what was taken of it, or -1, and its generation; and for each request: place of the limit
# that refuses, 0, or -1 where something is to be put back first; ms to wait or -1; then for each limit: used, ms until
# it is whole. The latter is left out where a request is granted: it is 0 for leases, and 60100 for rates.
EXCHANGE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = math.floor(now / 100)
local first = slot - 600
local asked = cmsgpack.unpack(ARGV[1])
local lease, process, rates, leases, limits, requests = unpack(asked)
local mine = 'b:' .. process
local state, restored = {}, {}

local function whole(number) return string.format('%.0f', number) end
local function holder(number) return process .. ':' .. whole(number) end

for _, row in ipairs(rates) do
  local key, at, generation, more = KEYS[row[1]], row[2], row[3], row[4]
  if redis.call('HGET', key, 'g') == generation and redis.call('HEXISTS', key, at) == 1 then
    redis.call('HINCRBY', key, at, whole(more))
    redis.call('HINCRBY', key, 's', whole(more))
  end
end
for _, row in ipairs(leases) do
  local holders = {}
  for i, number in ipairs(row[2]) do holders[i] = holder(number) end
  redis.call('ZREM', KEYS[row[1]], unpack(holders))
end

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
local function restore(limit)
  local key, kind, known, back = KEYS[limit[1]], limit[2], limit[5], limit[6]
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
    for each in string.gmatch(back, '[^,]+') do redis.call('ZADD', key, now + lease, each) end
    redis.call('PEXPIRE', key, lease + 1000)
  else
    put_back_rate(key, back)
    redis.call('HSET', key, mine, known)
  end
  return true
end

-- What is used, ms until it is whole, generation; and what is taken now.
local function look(limit)
  local number, kind = limit[1], limit[2]
  if state[number] then return state[number] end
  local key, found = KEYS[number], {kind = kind, reset = 0, generation = '', taken = 0, touched = false, holders = {}}
  state[number] = found
  if kind == 'l' then
    found.used = redis.call('ZCARD', key)
    return found
  end
  local known = redis.call('HMGET', key, 's', 'o', 'n', 'g')
  local sum, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or slot), tonumber(known[3] or slot)
  found.generation = known[4] or ''
  if newest < first then
    if known[1] then redis.call('DEL', key) end
    sum, found.generation = 0, ''
  elseif oldest < first then
    local gone = {}
    for s = oldest, first - 1 do gone[#gone + 1] = s end
    for _, amount in ipairs(redis.call('HMGET', key, unpack(gone))) do sum = sum - tonumber(amount or 0) end
    redis.call('HDEL', key, unpack(gone))
    redis.call('HSET', key, 's', sum, 'o', first)
  end
  found.used = sum
  if sum > 0 then found.reset = math.max((newest + 601) * 100 - now, 0) end
  return found
end

local function wait(limit, found, excess)
  if found.kind == 'l' then return 1000 end
  local key, slots = KEYS[limit[1]], {}
  for s = math.max(tonumber(redis.call('HGET', key, 'o') or slot), first), slot do slots[#slots + 1] = s end
  for place, amount in ipairs(redis.call('HMGET', key, unpack(slots))) do
    excess = excess - tonumber(amount or 0)
    if slots[place] == slot then excess = excess - found.taken end
    if excess <= 0 then return (slots[place] + 601) * 100 - now end
  end
  return 60000
end

local function taken_of(limit, amounts)
  if limit[2] == 'l' then return 1 end
  return math.min(amounts[limit[4]], limit[3])
end

local function take(limit, amount, number)
  local found = state[limit[1]]
  found.used, found.taken, found.touched = found.used + amount, found.taken + amount, true
  if found.kind == 'l' then
    found.holders[#found.holders + 1] = now + lease
    found.holders[#found.holders + 1] = holder(number)
  else
    found.reset = 60100
    if found.generation == '' then
      found.generation = time[1] .. '.' .. time[2]
      found.made = true
    end
  end
end

local function decide(limits, number, amounts)
  for _, limit in ipairs(limits) do
    if not restored[limit[1]] then
      if not restore(limit) then return {-1, -1, {}, {}} end
      restored[limit[1]] = true
    end
  end
  local used, resets = {}, {}
  local refused, waits = 0, -1
  for i, limit in ipairs(limits) do
    local found, amount = look(limit), taken_of(limit, amounts)
    used[i], resets[i] = found.used, found.reset
    if refused == 0 and found.used + amount > limit[3] then
      refused, waits = i, wait(limit, found, found.used + amount - limit[3])
    end
  end
  if refused ~= 0 or number == 0 then return {refused, waits, used, resets} end
  for i, limit in ipairs(limits) do
    take(limit, taken_of(limit, amounts), number)
    used[i] = state[limit[1]].used
  end
  return {0, -1, used, {}}
end

local answers, taken, generations = {}, {}, {}
for n, request in ipairs(requests) do
  answers[n] = decide(limits[request[1]], request[2], request[3])
end
for number, key in ipairs(KEYS) do
  local found = state[number]
  taken[number], generations[number] = -1, found and found.generation or ''
  if found and found.touched then
    taken[number] = found.taken
    if found.kind == 'l' then
      redis.call('ZADD', key, unpack(found.holders))
      redis.call('PEXPIRE', key, lease + 1000)
    else
      redis.call('HINCRBY', key, slot, whole(found.taken))
      redis.call('HINCRBY', key, 's', whole(found.taken))
      redis.call('HSETNX', key, 'o', slot)
      redis.call('HSET', key, 'n', slot)
      if found.made then redis.call('HSET', key, 'g', found.generation) end
      redis.call('PEXPIRE', key, 61000)
    end
  end
end
return cmsgpack.pack({slot, taken, generations, answers})
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
