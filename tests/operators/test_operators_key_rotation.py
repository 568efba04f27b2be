"""Keys that are changed while a day is half done."""

from __future__ import annotations

import functools
import gzip
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from balance_bridge.clock import Clock
from balance_bridge.errors import CredentialsRefused, ServerFault
from balance_bridge.extract.budget import Budget, Limits, NoSlot, budget_key
from balance_bridge.sandbox.server import CREDENTIALS
from balance_bridge.sandbox.wire import Reply

# Each run lets Airflow do a whole day.
pytestmark = pytest.mark.slow

# The day that takes more than one page.
BUSY_DAYS_BACK = 2
# Two snapshots, a page and the request that is refused fill a window.
LIMIT = 4
OLD, NEW = "sandbox-cash-key", "rotated-cash-key"
NEW_SECRET, NEW_TOKEN = "rotated-cash-secret-not-real", "rotated-amlyze-token-not-real"
NEW_ELVEN_KEY, NEW_ELVEN_SECRET = "rotated-elven-key", "rotated-elven-secret-not-real"


def after(answers: int, api: Any, then: Any) -> None:
    """Let an API answer so many requests, then do something before the next one."""
    answer, left = api.answer, [answers]

    def counted(call: Any) -> Reply:
        if left[0] == 0:
            then()
        left[0] -= 1
        reply: Reply = answer(call)
        return reply

    api.answer = counted


def rotate_exchange(world: Any) -> None:
    exchange = world.sandbox.exchange
    exchange.users = {NEW: NEW_SECRET}
    # The same account behind another key.
    exchange.world._books[NEW, "cash"] = exchange.world.book(OLD, "cash", world.now.date())
    world.connect("ascendex_cash", login=NEW, password=NEW_SECRET, extra={"requests_per_minute": LIMIT})


def rotate_destinations(world: Any) -> None:
    world.sandbox.amlyze._token = NEW_TOKEN
    world.sandbox.elven.users = {NEW_ELVEN_KEY: NEW_ELVEN_SECRET}
    world.connect("amlyze_default", password=NEW_TOKEN)
    world.connect("elven_default", login=NEW_ELVEN_KEY, password=NEW_ELVEN_SECRET)


def asked(world: Any) -> Counter[str]:
    """The requests that the exchange answered, by what was asked for."""
    journal = [line for line in world.sandbox.journal.requests if line.api == "exchange" and line.status == 200]
    return Counter(line.path.rsplit("/", 1)[-1] for line in journal)


def stand_still(world: Any) -> Callable[[str], Budget]:
    """Let no window of the exchange's budget pass by itself, however long this machine takes.

    Returns:
        The budget of a key, as the tasks open it.
    """
    stands = Clock(time.time, lambda: 1_000_000.0 + sum(world.naps), world.naps.append)
    opening = functools.partial(Budget, clock=stands)
    world.monkeypatch.setattr("balance_bridge.hooks.ascendex.Budget", opening)
    return lambda key: opening(f"sqlite:///{world.folder}/budget.db", budget_key(key), limits=Limits(LIMIT))


def in_clear(path: Path) -> bytes:
    """What a file holds once it is unpacked."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".parquet":
        return path.read_bytes() + str(pq.read_table(path).to_pylist()).encode()
    return path.read_bytes()


def test_with_new_keys_the_day_goes_on_where_it_was(
    world: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    sandbox, day = world.sandbox, str(world.now.date() - timedelta(days=BUSY_DAYS_BACK))
    world.accounts_file.write_text(world.accounts_file.read_text().replace("{every: 6h}", "{every: 1h}"))
    world.connect("ascendex_cash", extra={"requests_per_minute": LIMIT})
    budget = stand_still(world)

    # The exchange's key is withdrawn after both snapshots and a page.
    after(3, sandbox.exchange, lambda: setattr(sandbox.exchange, "users", {}))
    ended = world.run(date=day)
    assert isinstance(ended.errors["history"], CredentialsRefused)
    assert asked(world).total() == 3
    assert budget(OLD).usage().taken == world.requests("exchange") == LIMIT
    assert budget(NEW).usage().requests == 0
    rotate_exchange(world)

    # Amlyze's token is withdrawn after its first batch, and Elven breaks down over what it has just taken.
    after(1, sandbox.amlyze, lambda: setattr(sandbox.amlyze, "_token", "withdrawn"))
    take = sandbox.elven.answer
    sandbox.elven.answer = lambda call: take(call) and Reply(500, {"error": "broken"})
    ended = world.run(date=day)
    assert isinstance(ended.errors["load_amlyze"], CredentialsRefused)
    assert isinstance(ended.errors["load_elven"], ServerFault)
    first_batch = [kept.number for kept in sandbox.amlyze.delivered]
    assert len(first_batch) == 100
    snapshots = {path: count for path, count in asked(world).items() if "snapshot" in path}
    assert sum(snapshots.values()) == 2, "no snapshot was asked for again"
    pages = asked(world).total()
    sandbox.elven.answer = take
    rotate_destinations(world)

    ended = world.run(date=day)
    assert ended.state == "success"
    assert asked(world).total() == pages, "nothing was fetched again"
    hidden = [NEW, NEW_SECRET, NEW_TOKEN, NEW_ELVEN_KEY, NEW_ELVEN_SECRET, OLD, CREDENTIALS.amlyze]
    hidden += [*CREDENTIALS.exchange.values(), *CREDENTIALS.elven, *CREDENTIALS.elven.values()]
    # Looked at now: asking the sandbox for its books names the old key.
    told = capfd.readouterr()
    for said in (caplog.text, told.out, told.err):
        assert [secret for secret in hidden if secret in said] == [], "in a log"
    sandbox.exchange.users[OLD] = "for the sandbox's own books"
    taken = [kept.number for kept in sandbox.amlyze.delivered]
    assert taken[:100] == first_batch
    assert len(taken) == len(set(taken))
    assert {kept.state for kept in sandbox.amlyze.delivered} == {"new"}, "nothing twice"
    # Elven's answer was lost: the very same rows once more.
    imports = [(kept.key, kept.balance.text) for kept in sandbox.elven.delivered]
    half = len(imports) // 2
    assert imports[:half] == imports[half:]
    sandbox.elven.delivered = sandbox.elven.delivered[half:]
    assert world.differences("main_cash", world.now.date() - timedelta(days=BUSY_DAYS_BACK)) == []
    # Nobody waited for the old key's window, and it is as full as it was.
    assert world.naps == []
    assert isinstance(budget(OLD).try_take(), NoSlot)
    assert budget(OLD).usage().requests == LIMIT
    assert budget(NEW).usage().requests == world.requests("exchange") - LIMIT
    for path in world.folder.rglob("*"):
        if path.is_file():
            data = in_clear(path)
            assert [secret for secret in hidden if secret.encode() in data] == [], path
