"""What the Redis server does in one step: the Lua scripts of the backend, constant texts (floor 3).

All keys begin with ``{namespace}:``, so that they lie in one slot of a cluster:

===============  =========  ==========================================================================
``format``       string     the schema's version
``run:ID``       hash       the entry, with the times of the run's first and last checkpoint
``log:ID``       sorted set the rows, each a packed header and its frame; score: its last record
``time``         sorted set ids of all runs; score: when the run was changed last
``status:S``     sorted set the same, of one status; ``group:G`` and ``label:L`` likewise
``cp:first``     sorted set ids of runs that hold checkpoints; score: the oldest one's time
``cp:last``      sorted set the same; score: the newest one's time
``totals``       string     records, checkpoints, raw and stored bytes of all runs, packed: eight bytes each
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
    "TOTALS",
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
TOTALS = struct.Struct(">QQQQ")
"""The records, checkpoints, raw and stored bytes of all runs."""


class Script:
    """A script's text, and the name by which the server knows it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_BEGIN = f"""
local P = string.sub(KEYS[1], 1, -7)
local call = redis.call
local found = call('GET', KEYS[1])
if found and found ~= '{FORMAT}' then return redis.error_reply('{FORMAT_ERROR} ' .. found) end
"""
_TOTALS = """
local TOTALS = '>I8I8I8I8'
local function add_to_totals(records, checkpoints, raw, stored)
  local is, r, c, w, s = call('GET', P .. 'totals'), 0, 0, 0, 0
  if is then r, c, w, s = struct.unpack(TOTALS, is) end
  call('SET', P .. 'totals', struct.pack(TOTALS, r + records, c + checkpoints, w + raw, s + stored))
end
"""

_EACH = """
local function each(log, from, to, visit)
  local rows = call('ZRANGEBYSCORE', log, from, to, 'LIMIT', 0, 128)
  while #rows > 0 do
    local end_at
    for _, row in ipairs(rows) do
      local row_first, row_last, _, at, checkpoints, raw, frame = struct.unpack('>I8I8I8dI4I8', row)
      end_at = row_last
      visit(row_first, row_last, at, checkpoints, raw, #row - frame + 1)
    end
    rows = call('ZRANGEBYSCORE', log, '(' .. string.format('%.0f', end_at), to, 'LIMIT', 0, 128)
  end
end
"""

# An append that changes nothing in the run's entry, as nearly all do, takes three commands. `last` travels as
# text beside the packed row: to make texts of numbers costs more here than a command does.
write = Script(
    _BEGIN
    + _TOTALS
    + """
local function moves(kind, id, old, new, at)
  if old and old ~= '' and old ~= new then call('ZREM', P .. kind .. old, id) end
  if new ~= '' then call('ZADD', P .. kind .. new, at, id) end
end

local function change(id, run, new, set)
  local was = new.updated_at and call('HMGET', run, 'status', 'group', 'label')
  call('HSET', run, unpack(set))
  if was then
    call('ZADD', P .. 'time', new.updated_at, id)
    moves('status:', id, was[1], new.status, new.updated_at)
    moves('group:', id, was[2], new.group, new.updated_at)
    moves('label:', id, was[3], new.label or was[3], new.updated_at)
  end
end

local function checkpointed(id, run, at)
  local is = call('HMGET', run, 'cp_first', 'cp_last')
  local written = string.format('%.17g', at)
  if not is[1] or at < tonumber(is[1]) then
    call('HSET', run, 'cp_first', written)
    call('ZADD', P .. 'cp:first', written, id)
  end
  if not is[2] or at > tonumber(is[2]) then
    call('HSET', run, 'cp_last', written)
    call('ZADD', P .. 'cp:last', written, id)
  end
end

local replies, n = {}, 0
local all_records, all_checkpoints, all_raw, all_stored = 0, 0, 0, 0
local i = 1
while ARGV[i] do
  local id, member, token, before, last = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local count = tonumber(ARGV[i + 6])
  local run = P .. 'run:' .. id
  local is = call('HMGET', run, 'token', 'last')
  local fits = is[1] == token and is[2] == before
  local new, set
  if count > 0 then
    new, set = {}, {unpack(ARGV, i + 7, i + 6 + 2 * count)}
    for k = 1, #set, 2 do new[set[k]] = set[k + 1] end
    if ARGV[i + 5] == '1' then fits = not is[1] and new.token == token and new.last == before end
  end
  if fits then
    if not found then
      call('SET', KEYS[1], FORMAT)
      found = true
    end
    local first, last_number, _, at, checkpoints, raw, frame = struct.unpack('>I8I8I8dI4I8', member)
    call('ZADD', P .. 'log:' .. id, last, member)
    if new then
      change(id, run, new, set)
    end
    call('HSET', run, 'last', last)
    if checkpoints > 0 then checkpointed(id, run, at) end
    all_records, all_checkpoints = all_records + last_number - first + 1, all_checkpoints + checkpoints
    all_raw, all_stored = all_raw + raw, all_stored + #member - frame + 1
  end
  n = n + 1
  replies[n] = fits and 1 or 0
  i = i + 7 + 2 * count
end
if all_records > 0 then add_to_totals(all_records, all_checkpoints, all_raw, all_stored) end
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
    + _TOTALS
    + _EACH
    + """
local records, checkpoints, raw, stored = 0, 0, 0, 0
local function count(row_first, row_last, _, row_checkpoints, row_raw, row_stored)
  records, checkpoints = records + (row_last - row_first + 1), checkpoints + row_checkpoints
  raw, stored = raw + row_raw, stored + row_stored
end
for i = 1, #ARGV, 2 do
  local id, run = ARGV[i], P .. 'run:' .. ARGV[i]
  local is = call('HMGET', run, 'token', 'status', 'group', 'label')
  if is[1] == ARGV[i + 1] then
    each(P .. 'log:' .. id, '-inf', '+inf', count)
    call('UNLINK', run, P .. 'log:' .. id)
    for _, key in ipairs({'time', 'cp:first', 'cp:last', 'status:' .. is[2], 'group:' .. is[3],
                          'label:' .. is[4]}) do
      call('ZREM', P .. key, id)
    end
  end
end
if records > 0 then add_to_totals(-records, -checkpoints, -raw, -stored) end
return checkpoints
"""
)

trim = Script(
    _BEGIN
    + _TOTALS
    + _EACH
    + """
local id, token, first, last, member = unpack(ARGV)
local run, log = P .. 'run:' .. id, P .. 'log:' .. id

local is = call('HMGET', run, 'token', 'last')
if is[1] ~= token or tonumber(last) >= tonumber(is[2]) then return false end
local begins, ends
local records, checkpoints, raw, stored = 0, 0, 0, 0
local function subtract(row_first, row_last, _, row_checkpoints, row_raw, row_stored)
  begins = begins or row_first
  ends = row_last
  records, checkpoints = records - (row_last - row_first + 1), checkpoints - row_checkpoints
  raw, stored = raw - row_raw, stored - row_stored
end
each(log, first, last, subtract)
if begins ~= tonumber(first) or ends ~= tonumber(last) then return false end
local removed = -checkpoints
local new_first, new_last, _, _, new_checkpoints, new_raw, frame = struct.unpack('>I8I8I8dI4I8', member)
records, checkpoints = records + (new_last - new_first + 1), checkpoints + new_checkpoints
raw, stored = raw + new_raw, stored + (#member - frame + 1)

call('ZREMRANGEBYSCORE', log, first, last)
call('ZADD', log, last, member)
add_to_totals(records, checkpoints, raw, stored)
if removed > 0 or new_checkpoints > 0 then
  local oldest, newest
  each(log, '-inf', '+inf', function(_, _, at, held)
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
