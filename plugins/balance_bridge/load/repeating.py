"""A request is repeated within seconds only if nothing can have been applied, and otherwise left to the next run.

That is so without a connection (three attempts), and after 429 (as the server asks, for two minutes at most).
"""

from __future__ import annotations

from collections.abc import Callable

import tenacity

from balance_bridge.clock import Clock
from balance_bridge.errors import ConnectionFailed, RateLimited

_MAX_CONNECTS = 3
_MIN_WAIT_S, _MAX_WAIT_S = 1.0, 120.0
_MAX_WAITS = 10


def repeating(clock: Clock, log: Callable[[str], None]) -> tenacity.Retrying:
    """What calls a function that makes one request, again where that is safe.

    Args:
        clock: Sleeps.
        log: Called with a line before each repetition.
    """

    def report(state: tenacity.RetryCallState) -> None:
        log(f"{_error(state)}; trying again in {state.upcoming_sleep:g} s")

    return tenacity.Retrying(
        sleep=clock.sleep,
        retry=tenacity.retry_if_exception_type((ConnectionFailed, RateLimited)),
        wait=_wait_s,
        stop=_give_up,
        before_sleep=report,
        reraise=True,
    )


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait_s(state: tenacity.RetryCallState) -> float:
    error, doubling_s = _error(state), 2.0 ** min(state.attempt_number - 1, 5)
    if isinstance(error, RateLimited) and error.wait_s is not None:
        return max(_MIN_WAIT_S, error.wait_s)
    return doubling_s


def _give_up(state: tenacity.RetryCallState) -> bool:
    if isinstance(_error(state), ConnectionFailed):
        return state.attempt_number >= _MAX_CONNECTS
    return state.attempt_number >= _MAX_WAITS or state.idle_for + state.upcoming_sleep > _MAX_WAIT_S
