"""What the Redis server does in one step: the Lua scripts of the backend, constant texts (floor 3).

All keys begin with ``{namespace}:``, so that they lie in one slot of a cluster:

===============  =========  ==========================================================================
``format``       string     the schema's version
``run:ID``       hash       the entry, with the run's own sums
``log:ID``       sorted set the rows, each a packed header and its frame; score: its last record
``time``         sorted set ids of all runs; score: when the run was changed last
``status:S``     sorted set the same, of one status; ``group:G`` and ``label:L`` likewise
``cp:first``     sorted set ids of runs that hold checkpoints; score: the oldest one's time
``cp:last``      sorted set the same; score: the newest one's time
``sums``         hash       records, checkpoints, raw and stored bytes of all runs
``cells``        hash       name to version (eight bytes) and value
``cells:names``  sorted set the names, all of score 0, so that they are sorted by their bytes
===============  =========  ==========================================================================

A script reads before it writes and refuses by then, so none stops half-way. Versions, tokens and record
numbers are compared as text, times as the doubles that the texts stand for. Ids are compared byte by byte:
Lua's own ``<`` follows the server's locale.
"""

from __future__ import annotations

import struct
from hashlib import sha1

__all__ = [
    "ENTRY_FIELDS",
    "FORMAT",
    "FORMAT_ERROR",
    "HEADER",
    "SUMS",
    "VERSION",
    "Script",
    "claim",
    "delete",
    "entries",
    "renew",
    "swap",
    "trim",
    "write",
]

FORMAT = 1
"""The newest schema that this version reads."""
FORMAT_ERROR = "SIFAKAFORMAT"
"""What a script's refusal of a newer schema begins with."""
HEADER = struct.Struct(">QQQdIQ")
"""A row's first, last, token, at, checkpoints, raw; the frame follows."""
VERSION = struct.Struct(">Q")
"""A cell's version; the value follows."""
ENTRY_FIELDS = (
    "token",
    "owner",
    "lease_until",
    "status",
    "reason",
    "group",
    "label",
    "until",
    "opened_at",
    "updated_at",
    "last",
)
"""The fields of a run's hash that are its entry, in the order of Entry behind the id."""
SUMS = ("records", "checkpoints", "raw", "stored")


class Script:
    """A script's text, and the name by which the server knows it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


_BEGIN = f"""
local P = string.sub(KEYS[1], 1, -7)
local call = redis.call
local found = call('GET', KEYS[1])
if found and found ~= '{FORMAT}' then return redis.error_reply('{FORMAT_ERROR} ' .. found) end
"""
_SUMS = """
local function text(number) return string.format('%.0f', number) end
local SUMS = {'records', 'checkpoints', 'raw', 'stored'}
local function add_to_sums(by)
  local is, set = call('HMGET', P .. 'sums', unpack(SUMS)), {}
  for n, name in ipairs(SUMS) do
    set[2 * n - 1], set[2 * n] = name, text((tonumber(is[n]) or 0) + by[n])
  end
  call('HSET', P .. 'sums', unpack(set))
end
"""

write = Script(
    _BEGIN
    + _SUMS
    + """
local function moves(kind, id, old, new, at)
  if old and old ~= '' and old ~= new then call('ZREM', P .. kind .. old, id) end
  if new ~= '' then call('ZADD', P .. kind .. new, at, id) end
end

local function checkpointed(id, run, at, oldest, newest)
  if not oldest or tonumber(at) < tonumber(oldest) then
    call('HSET', run, 'cp_first', at)
    call('ZADD', P .. 'cp:first', at, id)
  end
  if not newest or tonumber(at) > tonumber(newest) then
    call('HSET', run, 'cp_last', at)
    call('ZADD', P .. 'cp:last', at, id)
  end
end

local replies, total = {}, {0, 0, 0, 0}
local i = 1
while i <= #ARGV do
  local id, member, opens, count = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1', tonumber(ARGV[i + 3])
  local new, set = {}, {unpack(ARGV, i + 4, i + 3 + 2 * count)}
  for n = 1, #set, 2 do new[set[n]] = set[n + 1] end
  i = i + 4 + 2 * count
  local first, last, token, at, checkpoints, raw, frame = struct.unpack('>I8I8I8dI4I8', member)
  local sums = {last - first + 1, checkpoints, raw, #member - frame + 1}
  local before = text(first - 1)
  token, last = text(token), text(last)
  local run = P .. 'run:' .. id
  local is = call('HMGET', run, 'token', 'last', 'status', 'group', 'label', 'cp_first', 'cp_last',
                  'records', 'checkpoints', 'raw', 'stored')
  local fits = is[1] == token and is[2] == before
  if opens then fits = not is[1] and new.token == token and new.last == before end
  if fits then
    if not found then
      call('SET', KEYS[1], FORMAT)
      found = true
    end
    call('ZADD', P .. 'log:' .. id, last, member)
    for n, name in ipairs(SUMS) do
      set[#set + 1] = name
      set[#set + 1] = text((tonumber(is[7 + n]) or 0) + sums[n])
      total[n] = total[n] + sums[n]
    end
    set[#set + 1] = 'last'
    set[#set + 1] = last
    call('HSET', run, unpack(set))
    if new.updated_at then
      call('ZADD', P .. 'time', new.updated_at, id)
      moves('status:', id, is[3], new.status, new.updated_at)
      moves('group:', id, is[4], new.group, new.updated_at)
      moves('label:', id, is[5], new.label or is[5], new.updated_at)
    end
    if checkpoints > 0 then checkpointed(id, run, string.format('%.17g', at), is[6], is[7]) end
  end
  replies[#replies + 1] = fits and 1 or 0
end
add_to_sums(total)
return replies
""".replace("FORMAT", f"'{FORMAT}'")
)

claim = Script(
    _BEGIN
    + """
local run, token, owner, lease_until, next_token = P .. 'run:' .. ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if call('HGET', run, 'token') ~= token then return 0 end
call('HSET', run, 'token', next_token, 'owner', owner, 'lease_until', lease_until)
return 1
"""
)

renew = Script(
    _BEGIN
    + """
local replies = {}
for i = 1, #ARGV, 4 do
  local run, token, owner = P .. 'run:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local is = call('HMGET', run, 'token', 'owner')
  local fits = is[1] == token and (owner == '' or is[2] == owner)
  if fits then call('HSET', run, 'owner', owner, 'lease_until', ARGV[i + 3]) end
  replies[#replies + 1] = fits and 1 or 0
end
return replies
"""
)

delete = Script(
    _BEGIN
    + _SUMS
    + """
local records, checkpoints, raw, stored = 0, 0, 0, 0
for i = 1, #ARGV, 2 do
  local id, run = ARGV[i], P .. 'run:' .. ARGV[i]
  local is = call('HMGET', run, 'token', 'status', 'group', 'label', 'records', 'checkpoints', 'raw',
                  'stored')
  if is[1] == ARGV[i + 1] then
    call('UNLINK', run, P .. 'log:' .. id)
    for _, key in ipairs({'time', 'cp:first', 'cp:last', 'status:' .. is[2], 'group:' .. is[3],
                          'label:' .. is[4]}) do
      call('ZREM', P .. key, id)
    end
    records, checkpoints = records + (tonumber(is[5]) or 0), checkpoints + (tonumber(is[6]) or 0)
    raw, stored = raw + (tonumber(is[7]) or 0), stored + (tonumber(is[8]) or 0)
  end
end
add_to_sums({-records, -checkpoints, -raw, -stored})
return checkpoints
"""
)

trim = Script(
    _BEGIN
    + _SUMS
    + """
local id, token, first, last, member = unpack(ARGV)
local run, log = P .. 'run:' .. id, P .. 'log:' .. id

local function each(from, to, visit)
  local rows = call('ZRANGEBYSCORE', log, from, to, 'LIMIT', 0, 128)
  while #rows > 0 do
    local end_at
    for _, row in ipairs(rows) do
      local row_first, row_last, _, at, checkpoints, raw, frame = struct.unpack('>I8I8I8dI4I8', row)
      end_at = row_last
      visit(row_first, row_last, at, checkpoints, raw, #row - frame + 1)
    end
    rows = call('ZRANGEBYSCORE', log, '(' .. text(end_at), to, 'LIMIT', 0, 128)
  end
end

local is = call('HMGET', run, 'token', 'last', 'records', 'checkpoints', 'raw', 'stored')
if is[1] ~= token or tonumber(last) >= tonumber(is[2]) then return false end
local begins, ends
local records, checkpoints, raw, stored = 0, 0, 0, 0
local function subtract(row_first, row_last, _, row_checkpoints, row_raw, row_stored)
  begins = begins or row_first
  ends = row_last
  records, checkpoints = records - (row_last - row_first + 1), checkpoints - row_checkpoints
  raw, stored = raw - row_raw, stored - row_stored
end
each(first, last, subtract)
if begins ~= tonumber(first) or ends ~= tonumber(last) then return false end
local removed = -checkpoints
local new_first, new_last, _, _, new_checkpoints, new_raw, frame = struct.unpack('>I8I8I8dI4I8', member)
records, checkpoints = records + (new_last - new_first + 1), checkpoints + new_checkpoints
raw, stored = raw + new_raw, stored + (#member - frame + 1)

call('ZREMRANGEBYSCORE', log, first, last)
call('ZADD', log, last, member)
call('HSET', run, 'records', text(is[3] + records), 'checkpoints', text(is[4] + checkpoints),
     'raw', text(is[5] + raw), 'stored', text(is[6] + stored))
add_to_sums({records, checkpoints, raw, stored})
if removed > 0 or new_checkpoints > 0 then
  local oldest, newest
  each('-inf', '+inf', function(_, _, at, held)
    if held > 0 then oldest, newest = math.min(oldest or at, at), math.max(newest or at, at) end
  end)
  if oldest then
    local from, to = string.format('%.17g', oldest), string.format('%.17g', newest)
    call('HSET', run, 'cp_first', from, 'cp_last', to)
    call('ZADD', P .. 'cp:first', from, id)
    call('ZADD', P .. 'cp:last', to, id)
  else
    call('HDEL', run, 'cp_first', 'cp_last')
    call('ZREM', P .. 'cp:first', id)
    call('ZREM', P .. 'cp:last', id)
  end
end
return removed - new_checkpoints
"""
)

swap = Script(
    _BEGIN
    + """
local name, version, cell = unpack(ARGV)
local is = call('HGET', P .. 'cells', name)
local at = is and string.sub(is, 1, 8) or string.rep(string.char(0), 8)
if at ~= version then return 0 end
if not found then call('SET', KEYS[1], FORMAT) end
call('HSET', P .. 'cells', name, cell)
if not is then call('ZADD', P .. 'cells:names', 0, name) end
return 1
""".replace("FORMAT", f"'{FORMAT}'")
)

entries = Script(
    _BEGIN
    + """
local function given(n)
  if string.sub(ARGV[n], 1, 1) == '=' then return string.sub(ARGV[n], 2) end
end
local q = {group = given(1), label = given(2), before = given(3), since = given(4), after_at = given(5),
           after_id = given(6), limit = tonumber(ARGV[7]), budget = tonumber(ARGV[8])}
if ARGV[9] then q.statuses = {unpack(ARGV, 10)} end

local function less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local keys, size = {P .. 'time'}, call('ZCARD', P .. 'time')
local function consider(others)
  local count = 0
  for _, key in ipairs(others) do count = count + call('ZCARD', key) end
  if count < size then keys, size = others, count end
end
local wanted
if q.statuses then
  wanted = {}
  local others = {}
  for n, status in ipairs(q.statuses) do
    wanted[status] = true
    others[n] = P .. 'status:' .. status
  end
  consider(others)
end
if q.group and q.group ~= '' then consider({P .. 'group:' .. q.group}) end
if q.label and q.label ~= '' then consider({P .. 'label:' .. q.label}) end

local function start(key)
  local rank = q.before and call('ZCOUNT', key, q.before, '+inf') or 0
  if q.after_at then
    local low, high = call('ZCOUNT', key, '(' .. q.after_at, '+inf'), call('ZCOUNT', key, q.after_at, '+inf')
    while low < high do
      local middle = math.floor((low + high) / 2)
      local id = call('ZREVRANGE', key, middle, middle)[1]
      if less(id, q.after_id) then high = middle else low = middle + 1 end
    end
    rank = math.max(rank, low)
  end
  return rank
end

local function fill(from)
  from.ids = call('ZREVRANGE', from.key, from.rank, from.rank + 63, 'WITHSCORES')
  from.rank, from.at = from.rank + 64, 1
end
local froms = {}
for n, key in ipairs(keys) do
  froms[n] = {key = key, rank = start(key)}
  fill(froms[n])
end

local function newest()
  local best, best_id, best_at, best_text
  for _, from in ipairs(froms) do
    local id = from.ids[from.at]
    if id then
      local at = tonumber(from.ids[from.at + 1])
      if not best or at > best_at or (at == best_at and less(best_id, id)) then
        best, best_id, best_at, best_text = from, id, at, from.ids[from.at + 1]
      end
    end
  end
  if best then
    best.at = best.at + 2
    if best.at > #best.ids and #best.ids == 128 then fill(best) end
  end
  return best_id, best_at, best_text
end

local out, seen = {'', ''}, 0
local since = q.since and tonumber(q.since)
while #out - 2 < 2 * q.limit do
  local id, at, written = newest()
  if not id or (since and at < since) then return out end
  local is = call('HMGET', P .. 'run:' .. id, FIELDS)
  if is[1] and (not wanted or wanted[is[4]]) and (not q.group or is[6] == q.group)
     and (not q.label or is[7] == q.label) then
    out[#out + 1] = id
    out[#out + 1] = is
  end
  seen = seen + 1
  if seen >= q.budget then
    out[1], out[2] = written, id
    return out
  end
end
return out
""".replace("FIELDS", ", ".join(f"'{field}'" for field in ENTRY_FIELDS))
)
