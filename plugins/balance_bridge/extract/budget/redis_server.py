"""A budget for workers on several machines, in Redis.

Each step is one script, which Redis runs alone and by its own clock. A Redis that loses its data in a restart forgets
which places are taken: let it keep them (``appendonly yes``, and no eviction), or restart it while nothing is
extracted.
"""

from __future__ import annotations

import os
from typing import Any, Unpack

import redis

from balance_bridge.errors import ConnectionFailed
from balance_bridge.extract.budget.base import WINDOW_S, Budget, Full, Options, Usage
from balance_bridge.transport import Redactor, url_secrets

_TIMEOUT_S = 10.0
# KEYS: places (sorted by the instant at which each is free), those under way, tallies. ARGV[1]: the furthest distance.
# Numbers with a fraction come back as text: Redis would cut them.
_HEAD = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function text(number) return string.format('%.6f', number) end
local latest = now + ARGV[1]
for _, place in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(latest), '+inf')) do
    redis.call('ZADD', KEYS[1], text(latest), place)
end
for _, place in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now))) do
    redis.call('ZREM', KEYS[1], place)
    redis.call('SREM', KEYS[2], place)
end
local taken = redis.call('ZCARD', KEYS[1])
local function keep()
    redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[1]) + 60)
    redis.call('EXPIRE', KEYS[2], math.ceil(ARGV[1]) + 60)
end
"""
_TAKE = (
    _HEAD
    + """
local limit = tonumber(ARGV[2])
if taken >= limit then
    local first = redis.call('ZRANGE', KEYS[1], taken - limit, taken - limit, 'WITHSCORES')
    return {'0', text(first[2] - now), tostring(redis.call('SISMEMBER', KEYS[2], first[1]))}
end
local place = redis.call('HINCRBY', KEYS[3], 'places', 1)
redis.call('HINCRBY', KEYS[3], 'requests', 1)
redis.call('ZADD', KEYS[1], text(now + ARGV[3]), place)
redis.call('SADD', KEYS[2], place)
keep()
return {tostring(place)}
"""
)
# A request that outlived its lease has lost its place, and may have arrived only now.
_GIVE_BACK = (
    _HEAD
    + """
local free_at = now + ARGV[3]
if redis.call('SREM', KEYS[2], ARGV[2]) == 0 then
    local known = redis.call('ZSCORE', KEYS[1], ARGV[2])
    if known then free_at = math.max(free_at, tonumber(known)) end
end
redis.call('ZADD', KEYS[1], text(free_at), ARGV[2])
keep()
return {}
"""
)
# Places of its own, a whole window of them: whoever gives a place back does not shorten what the server asked for.
# They stand for those that would be free before; requests under way may arrive after them.
_FILL = (
    _HEAD
    + """
local free_at = now + ARGV[3]
for _, place in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(free_at))) do
    if redis.call('SISMEMBER', KEYS[2], place) == 0 then redis.call('ZREM', KEYS[1], place) end
end
for _ = 1, tonumber(ARGV[2]) do
    redis.call('ZADD', KEYS[1], text(free_at), redis.call('HINCRBY', KEYS[3], 'places', 1))
end
redis.call('HINCRBY', KEYS[3], 'refusals', 1)
keep()
return {}
"""
)
_USAGE = (
    _HEAD
    + """
local tally = redis.call('HMGET', KEYS[3], 'requests', 'refusals')
return {tostring(taken), tally[1] or '0', tally[2] or '0'}
"""
)


class RedisBudget(Budget):
    """A budget in Redis.

    Args:
        url: ``redis://`` or ``rediss://``; it may hold a password, which no message shows.
        key: As :func:`budget_key` makes it.
        options: As :class:`Budget` takes them.
    """

    def __init__(
        self,
        url: str,
        key: str,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._url = url
        # One slot of a cluster for all of them.
        self._keys = [f"balance-bridge:budget:{{{key}}}:{part}" for part in ("places", "held", "tally")]
        self._made_by: int | None = None
        self._client: Any = None

    def _take(self) -> int | Full:
        """See :meth:`Budget._take`."""
        found = self._run(_TAKE, self._limit, self._held_s)
        if len(found) == 1:
            return int(found[0])
        return Full(max(float(found[1]), 0.001), held=found[2] == b"1")

    def give_back(self, place: int) -> None:
        """See :meth:`Budget.give_back`."""
        self._run(_GIVE_BACK, place, self._freed_s)

    def fill(self, for_s: float = WINDOW_S) -> None:
        """See :meth:`Budget.fill`."""
        self._run(_FILL, self._limit, self._filled_s(for_s))

    def usage(self) -> Usage:
        """See :meth:`Budget.usage`."""
        taken, requests, refusals = map(int, self._run(_USAGE))
        return Usage(self._limit, min(taken, self._limit), requests, refusals)

    def _run(self, script: str, *arguments: float) -> list[bytes]:
        try:
            found: list[bytes] = self._connected().eval(
                script, len(self._keys), *self._keys, self._furthest_s, *arguments
            )
        except (redis.RedisError, OSError) as error:
            why = Redactor(url_secrets(self._url)).clean(str(error))
            raise ConnectionFailed(
                f"the request budget in Redis cannot be reached ({why}); without it no request is made: see that Redis "
                "is up, or set another one with the option [balance_bridge] budget"
            ) from None
        return found

    def _connected(self) -> Any:
        # Tasks fork, and a connection must not be shared by two processes.
        if self._made_by != os.getpid():
            self._client = redis.Redis.from_url(self._url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
            self._made_by = os.getpid()
        return self._client
