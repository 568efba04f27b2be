"""A machine whose clock is wrong still reads, by the exchange's time, and says so once."""

from __future__ import annotations

import json
import threading
import time as real_time
from collections.abc import Callable
from datetime import UTC, date, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.clock import Clock
from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient, Category, TimestampRefused
from balance_bridge.extract.budget import Budget
from balance_bridge.sandbox.exchange import Exchange
from balance_bridge.sandbox.wire import Call, Journal
from balance_bridge.sandbox.world import World
from balance_bridge.transport import Credentials, Response, Transport

KEY = "key"
SECRET = "secret-not-real"
TODAY = date(2026, 11, 21)
SNAPSHOT = "data/v1/cash/balance/snapshot"
ASKED = {"date": TODAY.isoformat()}


class Judge:
    """The sandbox's exchange, as strict as ever, by a clock of its own; its answers say what time that is.

    Attributes:
        skew_s: Seconds by which the exchange's clock is ahead of the machine's.
        journal: What arrived there.
        dated: Whether answers have a Date header.
        way_s: Seconds that a request, and then its answer, are under way.
    """

    def __init__(self, time: Any, skew_s: float) -> None:
        self.time = time
        self.skew_s = skew_s
        self.journal = Journal()
        self.dated = True
        self.way_s = (0.1, 0.2)
        self._api = Exchange({KEY: SECRET}, World(1, TODAY), Clock(wall=self.now), self.journal)

    def now(self) -> float:
        return float(self.time.now + self.skew_s)

    def send(self, method: str, url: str, *, headers: Any, params: Any = None, **_: Any) -> Response:
        sent_at = self.time.now
        self.time.now += self.way_s[0]
        reply = self._api.answer(Call(method, urlsplit(url).path, urlencode(params or {}), headers))
        dated = {"date": format_datetime(datetime.fromtimestamp(self.now(), UTC), usegmt=True)} if self.dated else {}
        self.time.now += self.way_s[1]
        return Response(f"{method} {url}", reply.status, dated, reply.body(), sent_at, self.time.now)


@pytest.fixture
def machine(kit: SimpleNamespace, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """A client on a machine whose clock differs from the exchange's."""

    def made(skew_s: float, folder: Path = tmp_path) -> SimpleNamespace:
        time = kit.FakeClock()
        judge, told = Judge(time, skew_s), []
        budget = Budget(f"sqlite:///{folder}/budget.db", "key", clock=time.clock)
        client = AscendexClient(
            judge,  # type: ignore[arg-type]
            Credentials("https://exchange.test", KEY, SECRET, name="connection 'a'"),
            budget=budget,
            clock=time.clock,
            log=told.append,
        )
        return SimpleNamespace(time=time, judge=judge, told=told, client=client)

    return made


def warnings(told: list[str]) -> list[str]:
    return [text for text in told if "clock" in text]


def statuses(judge: Judge) -> list[int]:
    return [line.status for line in judge.journal.requests]


@pytest.mark.parametrize(("skew_s", "side"), [(40, "behind"), (-40, "ahead of"), (86_400, "behind")])
def test_a_clock_that_the_exchange_refuses_costs_one_request_and_is_told_once(
    machine: Any, skew_s: float, side: str
) -> None:
    it = machine(skew_s)
    for _ in range(30):
        assert it.client.get(SNAPSHOT, ASKED).status == 200
    assert statuses(it.judge) == [400] + [200] * 30
    (warning,) = warnings(it.told)
    assert warning.startswith(f"warning: connection 'a': this machine's clock is {abs(skew_s)} s {side} the exchange's")
    assert "requests are signed by the exchange's time meanwhile" in warning
    assert warning.endswith("Set this machine's clock by NTP")
    assert abs(it.client.clock_skew_s - skew_s) < 1


@pytest.mark.parametrize("skew_s", [20, -20])
def test_a_clock_that_is_off_but_good_enough_is_told_once_too(machine: Any, skew_s: float) -> None:
    it = machine(skew_s)
    for _ in range(10):
        it.client.get(SNAPSHOT, ASKED)
    assert statuses(it.judge) == [200] * 10
    assert len(warnings(it.told)) == 1

    it.judge.skew_s *= 3
    it.client.get(SNAPSHOT, ASKED)
    assert statuses(it.judge)[10:] == [400, 200]
    assert len(warnings(it.told)) == 1


def test_a_clock_that_is_right_to_some_seconds_is_not_told(machine: Any) -> None:
    for skew_s in (-4, -1, 0, 1, 4):
        it = machine(skew_s)
        it.client.get(SNAPSHOT, ASKED)
        assert not warnings(it.told)


def test_a_slow_request_makes_no_clock_wrong(machine: Any) -> None:
    for way_s in ((20, 0.1), (0.1, 25)):
        it = machine(0)
        it.judge.way_s = way_s
        it.client.get(SNAPSHOT, ASKED)
        assert statuses(it.judge) == [200]
        assert not warnings(it.told)


def test_a_clock_that_was_mended_meanwhile_costs_one_request(machine: Any) -> None:
    it = machine(40)
    it.client.get(SNAPSHOT, ASKED)
    it.judge.skew_s = 0
    for _ in range(3):
        it.client.get(SNAPSHOT, ASKED)
    assert statuses(it.judge) == [400, 200, 400, 200, 200, 200]
    assert len(warnings(it.told)) == 1


def test_without_the_exchange_s_time_a_refused_timestamp_is_final_at_once(machine: Any) -> None:
    it = machine(40)
    it.judge.dated = False
    with pytest.raises(TimestampRefused, match=r"^connection 'a': .*100011.*set this machine's clock by NTP"):
        it.client.get(SNAPSHOT, ASKED)
    assert statuses(it.judge) == [400]


def test_a_timestamp_that_is_refused_again_is_final_and_tells_how_far_the_clocks_are_apart(machine: Any) -> None:
    it = machine(-100)
    # Each request is held back for longer than a signature lives.
    it.judge.way_s = (45, 45)
    with pytest.raises(TimestampRefused, match=r"this machine's clock is \d+ s ahead of .*: set .* by NTP"):
        it.client.get(SNAPSHOT, ASKED)
    assert statuses(it.judge) == [400, 400]


def test_requests_that_are_held_back_are_not_blamed_on_the_clock(machine: Any) -> None:
    it = machine(0)
    it.judge.way_s = (45, 45)
    with pytest.raises(TimestampRefused, match="which is no reason: look for a proxy that holds requests back"):
        it.client.get(SNAPSHOT, ASKED)
    assert not warnings(it.told)


def test_info_is_signed_by_the_exchange_s_time_too(machine: Any) -> None:
    it = machine(40)
    assert it.client.info().status == 200
    assert it.client.info().status == 200
    assert statuses(it.judge) == [400, 200, 200]
    assert len(warnings(it.told)) == 1


@settings(deadline=None, max_examples=15)
@given(
    skew_s=st.integers(-40_000, 90_000),
    ways=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=20),
)
def test_no_clock_brings_a_429_or_a_failure(
    kit: SimpleNamespace,
    tmp_path_factory: pytest.TempPathFactory,
    skew_s: int,
    ways: list[tuple[float, float]],
) -> None:
    time = kit.FakeClock()
    judge = Judge(time, skew_s)
    budget = Budget(f"sqlite:///{tmp_path_factory.mktemp('budget')}/budget.db", "key", clock=time.clock)
    client = AscendexClient(
        judge,  # type: ignore[arg-type]
        Credentials("https://exchange.test", KEY, SECRET),
        budget=budget,
        clock=time.clock,
    )
    source = AscendexAccount(client, Category.CASH, retention_days=7, clock=time.clock)
    for way_s in ways:
        judge.way_s = way_s
        source.fetch_snapshot(TODAY)
    assert set(statuses(judge)) <= {200, 400}
    assert statuses(judge).count(400) <= 1
    assert source.now() == pytest.approx(judge.now(), abs=4)


# --- the same over a socket ---


class Handler(BaseHTTPRequestHandler):
    """Takes a timestamp that is within 30 s of the system's clock, and writes it in its Date header."""

    def do_GET(self) -> None:
        off_ms = abs(int(self.headers["x-auth-timestamp"]) - real_time.time() * 1000)
        status, document = (200, {"meta": {}}) if off_ms <= 30_000 else (400, {"code": 100011})
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("off_s", [40, -40])
def test_a_machine_that_is_off_reads_over_a_socket(off_s: float) -> None:
    clock, told = Clock(wall=lambda: real_time.time() + off_s), []
    transport = Transport(clock=clock)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            client = AscendexClient(transport, Credentials(url, KEY, SECRET), clock=clock, log=told.append)
            for _ in range(5):
                assert json.loads(client.get(SNAPSHOT, ASKED).body) == {"meta": {}}
        finally:
            server.shutdown()
            thread.join(10)
    assert len(warnings(told)) == 1
    assert client.clock_skew_s == pytest.approx(-off_s, abs=2)
