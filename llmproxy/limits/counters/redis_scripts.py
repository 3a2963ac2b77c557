"""What Redis does for the counters, each in one call and as a whole.

A rate is a hash: C{<slot>} to what was used in that tenth of a second, C{s} their sum, C{o} the first slot that can be
there, C{n} the last. A lease is a sorted set: who holds it, until when (milliseconds). A budget is a number. The time
is the server's, so that all processes have the same. Every key but a lifetime budget's expires by itself. Beside a
budget, C{:held} is what requests under way have claimed of it: it only tells whether some may soon come back. The
epoch is a word that is lost with everything else, so that it is known when a Redis has forgotten what it knew.
"""

from __future__ import annotations

from llmproxy.redis import Script

# KEYS: the epoch, then one for each claim. ARGV: holder, lease in ms, milliseconds a budget is kept after its end; then
# for each claim its kind (r, l, b), limit, amount, end in ms (0: never). Without a holder it only looks. A budget of
# which nothing is left refuses an amount of 0 too.
# Gives: place of the claim that refuses, 0, or -1 where a budget is not known here; ms to wait or -1, slot, epoch; then
# for each claim: used, ms until it is whole.
RESERVE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = math.floor(now / 100)
local first = slot - 600
local looking = ARGV[1] == ''
local used, resets, claims = {}, {}, {}
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = time[1] .. '.' .. time[2]
  redis.call('SET', KEYS[1], epoch)
end
for i = 2, #KEYS do claims[i - 1] = KEYS[i] end
for i, key in ipairs(claims) do
  if ARGV[i * 4] == 'b' and not looking and redis.call('EXISTS', key) == 0 then
    return {-1, -1, slot, epoch}
  end
end

local function look(i, key, kind)
  resets[i] = 0
  if kind == 'l' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used[i] = redis.call('ZCARD', key)
    return
  end
  if kind == 'b' then
    used[i] = tonumber(redis.call('GET', key) or 0)
    return
  end
  local known = redis.call('HMGET', key, 's', 'o', 'n')
  local sum, oldest, newest = tonumber(known[1] or 0), tonumber(known[2] or slot), tonumber(known[3] or slot)
  if newest < first then
    if known[1] then redis.call('DEL', key) end
    sum = 0
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
  if kind == 'b' then
    local held = tonumber(redis.call('GET', key .. ':held') or 0)
    return used[i] - held + amount <= limit and 1000 or -1
  end
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
for i, key in ipairs(claims) do
  local kind, limit, amount = ARGV[i * 4], tonumber(ARGV[i * 4 + 1]), tonumber(ARGV[i * 4 + 2])
  local least = kind == 'b' and math.max(amount, 1) or amount
  look(i, key, kind)
  if refused == 0 and not looking and used[i] + least > limit then
    refused, waits = i, wait(i, key, kind, limit, least)
  end
end
if refused == 0 and not looking then
  for i, key in ipairs(claims) do
    local kind, amount, ends = ARGV[i * 4], ARGV[i * 4 + 2], tonumber(ARGV[i * 4 + 3])
    if amount ~= '0' then
      used[i] = used[i] + tonumber(amount)
      if kind == 'l' then
        redis.call('ZADD', key, now + ARGV[2], ARGV[1])
        redis.call('PEXPIRE', key, ARGV[2] + 1000)
      elseif kind == 'b' then
        redis.call('INCRBY', key, amount)
        redis.call('INCRBY', key .. ':held', amount)
        redis.call('PEXPIRE', key .. ':held', 600000)
      else
        redis.call('HINCRBY', key, slot, amount)
        redis.call('HINCRBY', key, 's', amount)
        redis.call('HSETNX', key, 'o', slot)
        redis.call('HSET', key, 'n', slot)
        redis.call('PEXPIRE', key, 61000)
        resets[i] = 60100
      end
    end
  end
end
local told = {refused, waits, slot, epoch}
for i = 1, #claims do
  told[#told + 1] = used[i]
  told[#told + 1] = resets[i]
end
return told
""")

# KEYS: budgets. ARGV: milliseconds a budget is kept after its end; then for each what is spent of it, end in ms. What
# is known already stays.
SEED = Script("""
for i, key in ipairs(KEYS) do
  if redis.call('SETNX', key, ARGV[i * 2]) == 1 and ARGV[i * 2 + 1] ~= '0' then
    redis.call('PEXPIREAT', key, ARGV[i * 2 + 1] + ARGV[1])
  end
end
""")

# KEYS: the epoch, then one for each claim. ARGV: holder (empty for what was allowed without Redis), slot, epoch; then
# for each claim its kind, what was claimed, what was taken. What was claimed in another epoch is not claimed here, and
# a budget that is not known here will be what the store has of it.
SETTLE = Script("""
local same = redis.call('GET', KEYS[1]) == ARGV[3]
if ARGV[1] == '' and not same then return end
for i = 2, #KEYS do
  local key, at = KEYS[i], i * 3 - 2
  local kind, claimed, taken = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local more = same and taken - claimed or tonumber(taken)
  if kind == 'l' then
    redis.call('ZREM', key, ARGV[1])
  elseif kind == 'b' then
    local held = same and redis.call('GET', key .. ':held')
    if held then redis.call('SET', key .. ':held', math.max(held - claimed, 0), 'PX', 600000) end
    if more ~= 0 and redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, more) end
  elseif same and more ~= 0 and redis.call('HEXISTS', key, ARGV[2]) == 1 then
    redis.call('HINCRBY', key, ARGV[2], more)
    redis.call('HINCRBY', key, 's', more)
  end
end
""")

# KEYS: where processes are counted, then one lease for each that is held. ARGV: lease in ms, process; then who holds
# each. Gives how many processes there are.
RENEW = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
  redis.call('PEXPIRE', key, ARGV[1] + 1000)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZCARD', KEYS[1])
""")
