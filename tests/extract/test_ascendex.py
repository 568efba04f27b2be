from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge.errors import (
    BalanceBridgeError,
    BudgetExhausted,
    ConnectionFailed,
    CredentialsRefused,
    InvalidResponse,
    NotYetAvailable,
    PermanentError,
    RateLimited,
    RequestRefused,
    ResponseLost,
    ServerFault,
)
from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient, Category, TimestampRefused, sign
from balance_bridge.extract.budget import LEASE_S, REQUESTS_PER_WINDOW, Budget, NoSlot
from balance_bridge.transport import CONNECT_TIMEOUT_S, DEADLINE_S, Credentials, Response

KEY = "api-key-not-real"
# The documentation's own example, not in use anywhere.
SECRET = "hV8FgjyJtpvVeAcMAgzgAFQCN36wmbWuN7o3WPcYcYhFd8qvE43gzFGVsFcCqMNk"
SNAPSHOT = "data/v1/cash/balance/snapshot"


@pytest.mark.parametrize(
    ("timestamp_ms", "api_path", "signature"),
    [
        # The first two are the documentation's, the others follow from its rule.
        (1608133910000, "info", "/pwaAgWZQ1Xd/J4yZ4ReHSPQxd3ORP/YR8TvAttqqYM="),
        (1562952827927, "user/info", "vBZf8OQuiTJIVbNpNHGY3zcUsK5gJpwb5lgCgarpxYI="),
        (1608133910000, SNAPSHOT, "OxKgjMhf/Y/EIHnxg8tsc7NoQnyxlW8JRmKwqhmTsNM="),
        (1608133910000, "data/v1/margin/balance/history", "oUslh2FCP6AUfkm4O9dGjfliz/yK72yYvicecVF/5yQ="),
    ],
)
def test_signatures_are_the_documented_ones(timestamp_ms: int, api_path: str, signature: str) -> None:
    assert sign(SECRET, timestamp_ms, api_path) == signature


class Exchange:
    """A transport that answers by script, the last entry for ever; each request takes a tenth of a second."""

    def __init__(self, time: Any, *script: Response | BaseException) -> None:
        self.time = time
        self.script = list(script)
        self.requests: list[SimpleNamespace] = []

    def send(self, method: str, url: str, *, headers: Any, params: Any = None, **options: Any) -> Response:
        self.requests.append(
            SimpleNamespace(method=method, url=url, headers=dict(headers), params=params, at=self.time.now, **options)
        )
        self.time.now += 0.1
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(entry, BaseException):
            raise entry
        return entry


@pytest.fixture
def time(kit: SimpleNamespace) -> Any:
    return kit.FakeClock()


@pytest.fixture
def reply(kit: SimpleNamespace) -> Callable[..., Response]:
    return kit.answer


@pytest.fixture
def budget(time: Any, tmp_path: Path) -> Budget:
    return Budget(f"sqlite:///{tmp_path}/budget.db", "key", clock=time.clock)


@pytest.fixture
def make(time: Any, budget: Budget) -> Callable[..., Any]:
    def made(*script: Response | BaseException, **options: Any) -> tuple[AscendexClient, Exchange]:
        exchange = Exchange(time, *script)
        access = Credentials("https://exchange.test/", KEY, SECRET, options.pop("name", ""))
        given: dict[str, Any] = {"budget": budget, "clock": time.clock} | options
        return AscendexClient(exchange, access, **given), exchange  # type: ignore[arg-type]

    return made


def free_slots(budget: Budget) -> int:
    taken = 0
    while not isinstance(budget.try_take(), NoSlot):
        taken += 1
    return taken


def test_a_request_is_signed_as_documented(make: Any, reply: Any, time: Any) -> None:
    client, exchange = make(reply({"meta": {}}))
    client.get(SNAPSHOT, {"date": "2026-11-20"})
    (request,) = exchange.requests
    timestamp_ms = int(request.at * 1000)
    assert (request.method, request.url) == ("GET", f"https://exchange.test/api/pro/{SNAPSHOT}")
    assert request.params == {"date": "2026-11-20"}
    assert request.headers["x-auth-key"] == KEY
    assert request.headers["x-auth-timestamp"] == str(timestamp_ms)
    assert request.headers["x-auth-signature"] == sign(SECRET, timestamp_ms, SNAPSHOT)


def test_the_answer_is_given_as_it_came_bare_or_enveloped(make: Any, reply: Any) -> None:
    for document in ({"meta": {}}, {"code": 0, "data": {}}, {"code": "0", "data": {}}):
        client, _ = make(reply(document))
        assert json.loads(client.get(SNAPSHOT, {}).body) == document


CODES: list[tuple[Any, int, type[BalanceBridgeError]]] = [
    *((code, 400, RequestRefused) for code in (100001, 100004, 100006, 1900, 999999)),
    *((code, 401, CredentialsRefused) for code in (100009, 200001, 200003, 200014, 200015, 2100)),
    (100002, 404, NotYetAvailable),
    (100011, 400, TimestampRefused),
    *((code, 500, ServerFault) for code in (100101, 510001)),
    (200002, 400, RateLimited),
]


@pytest.mark.parametrize("spelling", [int, str])
@pytest.mark.parametrize("with_status", ["its status", "status 200"])
@pytest.mark.parametrize(("code", "status", "expected"), CODES)
def test_each_error_code_means_its_class_however_it_is_spelled(
    make: Any, reply: Any, spelling: Any, with_status: str, code: int, status: int, expected: type[BalanceBridgeError]
) -> None:
    document = {"code": spelling(code), "reason": "REASON", "message": "a message"}
    client, _ = make(
        reply(document, 200 if with_status == "status 200" else status, request="GET https://exchange.test/x")
    )
    with pytest.raises(BalanceBridgeError, match=rf"GET https://exchange\.test/x .*{code}: REASON a message") as caught:
        client.get(SNAPSHOT, {})
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, RequestRefused) for status in (301, 302, 308, 400, 404, 405, 418)),
        *((status, CredentialsRefused) for status in (401, 403)),
        (429, RateLimited),
        *((status, ServerFault) for status in (500, 502, 503, 504, 520)),
    ],
)
@pytest.mark.parametrize("body", [b"<html>no</html>", b"", b"[]", b'{"message": "no"}'])
def test_a_status_without_a_code_means_its_class(
    make: Any, reply: Any, status: int, expected: type[BalanceBridgeError], body: bytes
) -> None:
    client, _ = make(reply(body, status))
    with pytest.raises(BalanceBridgeError, match=f"answered {status}, code none") as caught:
        client.get(SNAPSHOT, {})
    assert type(caught.value) is expected


def test_a_redirect_tells_what_to_do(make: Any, reply: Any) -> None:
    client, _ = make(reply(b"", 302))
    with pytest.raises(RequestRefused, match="put the final address into the connection's host"):
        client.get(SNAPSHOT, {})


FAULT = {"code": 510001, "reason": "SERVER_ERROR"}
FULL = {"code": 200002, "reason": "TOO_MANY_ATTEMPTS"}


def passing(reply: Any) -> list[Any]:
    return [
        ConnectionFailed("no connection"),
        ResponseLost("no answer"),
        reply(FAULT, 500),
        reply(b"Bad gateway", 502),
        reply(b"<html>a proxy's page</html>", 200),
    ]


def test_a_read_is_repeated_until_it_succeeds(make: Any, reply: Any) -> None:
    for trouble in passing(reply):
        client, exchange = make(trouble, trouble, reply({"meta": {}}), budget=None)
        assert json.loads(client.get(SNAPSHOT, {}).body) == {"meta": {}}
        assert len(exchange.requests) == 3


def test_a_read_is_tried_three_times_at_most_with_growing_waits(make: Any, reply: Any, time: Any) -> None:
    for trouble, expected in zip(
        passing(reply), (ConnectionFailed, ResponseLost, ServerFault, ServerFault, InvalidResponse), strict=True
    ):
        time.slept.clear()
        client, exchange = make(trouble, budget=None)
        with pytest.raises(expected):
            client.get(SNAPSHOT, {})
        assert len(exchange.requests) == 3
        assert time.slept == [1.0, 2.0]


def test_every_attempt_is_signed_anew_and_counted(make: Any, reply: Any, budget: Budget) -> None:
    client, exchange = make(ResponseLost("no answer"), reply(FAULT, 500), reply({"meta": {}}))
    client.get(SNAPSHOT, {})
    timestamps = [request.headers["x-auth-timestamp"] for request in exchange.requests]
    assert len(set(timestamps)) == 3
    for request in exchange.requests:
        assert request.headers["x-auth-signature"] == sign(SECRET, int(request.at * 1000), SNAPSHOT)
    assert free_slots(budget) == REQUESTS_PER_WINDOW - 3


@pytest.mark.parametrize("code", [100001, 100002, 100006, 200001, 200003])
def test_what_is_final_is_not_repeated(make: Any, reply: Any, time: Any, code: int) -> None:
    client, exchange = make(reply({"code": code}, 400))
    with pytest.raises((PermanentError, NotYetAvailable)):
        client.get(SNAPSHOT, {})
    assert len(exchange.requests) == 1
    assert time.slept == []


@pytest.mark.parametrize("error", [PermanentError("the certificate is not trusted"), ZeroDivisionError()])
def test_an_error_that_cannot_pass_is_not_repeated(make: Any, error: Exception) -> None:
    client, exchange = make(error)
    with pytest.raises(type(error)):
        client.get(SNAPSHOT, {})
    assert len(exchange.requests) == 1


@pytest.mark.parametrize("status", [429, 400])
def test_a_full_window_is_waited_for_once(make: Any, reply: Any, time: Any, status: int) -> None:
    client, exchange = make(reply(FULL, status))
    with pytest.raises(RateLimited):
        client.get(SNAPSHOT, {})
    starts = [request.at for request in exchange.requests]
    assert len(starts) == 2
    assert 60 <= starts[1] - starts[0] < 61, "no wait is longer than needed"

    client, exchange = make(reply(FULL, status), reply({"meta": {}}))
    assert json.loads(client.get(SNAPSHOT, {}).body) == {"meta": {}}


def test_each_call_waits_for_a_full_window_anew(make: Any, reply: Any) -> None:
    good = reply({"meta": {}})
    client, exchange = make(reply(FULL, 429), good, reply(FULL, 429), good)
    client.get(SNAPSHOT, {})
    client.get(SNAPSHOT, {})
    assert len(exchange.requests) == 4


def test_a_full_window_is_full_for_every_process(make: Any, reply: Any, budget: Budget) -> None:
    client, _ = make(reply(FULL, 429))
    with pytest.raises(RateLimited):
        client.get(SNAPSHOT, {})
    assert free_slots(budget) == 0


def test_the_server_s_own_wait_is_kept_if_it_is_longer(make: Any, reply: Any) -> None:
    for asked_s, least, most in (("5", 60, 61), ("90", 90, 91)):
        client, exchange = make(reply(FULL, 429, retry_after=asked_s), reply({"meta": {}}))
        client.get(SNAPSHOT, {})
        assert least <= exchange.requests[1].at - exchange.requests[0].at <= most


def test_a_wait_without_measure_is_left_to_a_later_try(make: Any, reply: Any, time: Any, budget: Budget) -> None:
    client, exchange = make(reply(FULL, 429, retry_after="86400"))
    with pytest.raises(RateLimited) as caught:
        client.get(SNAPSHOT, {})
    assert caught.value.wait_s == 86400
    assert len(exchange.requests) == 1
    assert time.slept == []
    assert free_slots(budget) == 0


class Impatient:
    """Has a slot until it is blocked, and waits for none; notes what it was blocked for."""

    def __init__(self) -> None:
        self.blocked: list[float] = []

    @contextmanager
    def slot(self) -> Iterator[None]:
        if self.blocked:
            raise BudgetExhausted("no slot for 60 s", wait_s=60.0)
        yield

    def block_for(self, seconds: float = 60.0) -> None:
        self.blocked.append(seconds)


def test_where_the_budget_does_not_wait_the_exchange_s_refusal_is_told_along(make: Any, reply: Any, time: Any) -> None:
    for asked_s, blocked_s in ((None, 60), ("5", 60), ("600", 600)):
        budget = Impatient()
        client, exchange = make(reply(FULL, 429, **({"retry_after": asked_s} if asked_s else {})), budget=budget)
        with pytest.raises(BudgetExhausted, match="no slot for 60 s") as caught:
            client.get(SNAPSHOT, {})
        assert isinstance(caught.value.refusal, RateLimited)
        assert (caught.value.wait_s, budget.blocked, len(exchange.requests)) == (60, [blocked_s], 1)

        with pytest.raises(BudgetExhausted) as caught:
            client.get(SNAPSHOT, {})
        assert caught.value.refusal is None, "the refusal of another call"
    assert time.slept == []


def test_without_a_budget_a_full_window_is_not_waited_for(make: Any, reply: Any, time: Any, budget: Budget) -> None:
    for ask in (lambda client: client.info(), lambda client: client.get(SNAPSHOT, {})):
        client, exchange = make(reply(FULL, 429), budget=None)
        with pytest.raises(RateLimited):
            ask(client)
        assert len(exchange.requests) == 1
    client, exchange = make(reply(FULL, 429))
    with pytest.raises(RateLimited):
        client.info()
    assert (len(exchange.requests), time.slept) == (1, [])
    assert free_slots(budget) == REQUESTS_PER_WINDOW


def test_a_message_begins_with_the_access_s_name(make: Any, reply: Any) -> None:
    name = "connection 'ascendex_default'"
    told: list[str] = []
    for trouble in (reply(FAULT, 500), reply({"code": 200001}, 401), reply(FULL, 429)):
        client, _ = make(trouble, name=name, log=told.append)
        with pytest.raises(BalanceBridgeError, match=rf"^{name}: GET x answered"):
            client.get(SNAPSHOT, {})
    assert told
    assert all(f": {name}: GET x answered" in text for text in told)

    client, _ = make(reply(FULL, 429), name=name, budget=Impatient())
    with pytest.raises(BudgetExhausted, match=rf"^{name}: no slot") as caught:
        client.get(SNAPSHOT, {})
    assert str(caught.value.refusal).startswith(f"{name}: GET x answered 429")


def test_troubles_of_several_kinds_still_end(make: Any, reply: Any) -> None:
    refused = reply({"code": 100011}, 400, date="Thu, 01 Jan 1970 00:01:41 GMT")
    client, exchange = make(
        *(refused, ResponseLost("lost"), reply(FULL, 429), reply(FAULT, 500)), ResponseLost("lost"), reply({"meta": {}})
    )
    with pytest.raises(ResponseLost):
        client.get(SNAPSHOT, {})
    assert len(exchange.requests) == 5


def test_no_request_outlives_its_slot_in_the_budget(make: Any, reply: Any) -> None:
    client, exchange = make(reply({"meta": {}}))
    client.get(SNAPSHOT, {})
    assert exchange.requests[0].deadline_s == DEADLINE_S
    # The name's look-up and the connection can be late by what they are allowed themselves.
    assert DEADLINE_S + 2 * CONNECT_TIMEOUT_S < LEASE_S


def test_the_budget_is_waited_for_before_signing(make: Any, reply: Any, budget: Budget) -> None:
    budget.block_for()
    client, exchange = make(reply({"meta": {}}))
    client.get(SNAPSHOT, {})
    (request,) = exchange.requests
    assert int(request.headers["x-auth-timestamp"]) == int(request.at * 1000)


def test_info_is_asked_outside_the_budget(make: Any, reply: Any, budget: Budget, time: Any) -> None:
    budget.block_for()
    client, exchange = make(reply({"code": 0, "data": {"accountGroup": 6}}))
    client.info()
    (request,) = exchange.requests
    assert request.url == "https://exchange.test/api/pro/v1/info"
    assert request.headers["x-auth-signature"] == sign(SECRET, int(request.at * 1000), "info")
    assert time.slept == []


def test_without_its_budget_no_request_is_made(make: Any, reply: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    client, exchange = make(reply({"meta": {}}), budget=Budget(f"sqlite:///{tmp_path}/file/b.db", "key"))
    with pytest.raises(ConnectionFailed, match="No request is made without it"):
        client.get(SNAPSHOT, {})
    assert exchange.requests == []


def test_no_key_secret_or_signature_is_in_a_message_or_a_log(
    make: Any, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    troubles = [
        *passing(reply),
        *(reply({"code": code, "message": "no"}, 400) for code, _, _ in CODES),
        reply(FULL, 429),
    ]
    for trouble in troubles:
        client, exchange = make(trouble, log=told.append)
        with pytest.raises(BalanceBridgeError) as caught:
            client.get(SNAPSHOT, {})
        told.append(repr(caught.value))
        told.append(repr(caught.value.__cause__))
        signatures = [request.headers["x-auth-signature"] for request in exchange.requests]
        for hidden in (KEY, SECRET, *signatures):
            assert not any(hidden in text for text in told)
            assert hidden not in caplog.text
    assert any("fetching again in" in text for text in told)


@pytest.fixture
def source(make: Any, reply: Any, time: Any) -> Callable[..., tuple[AscendexAccount, Exchange]]:
    def made(*script: Any, category: str = "cash") -> tuple[AscendexAccount, Exchange]:
        client, exchange = make(*script)
        return AscendexAccount(client, Category(category), retention_days=7, clock=time.clock), exchange

    return made


def test_a_source_asks_the_documented_endpoints(source: Any, reply: Any) -> None:
    for category in ("cash", "margin"):
        asked, exchange = source(reply({"meta": {}}), category=category)
        asked.fetch_snapshot(date(2026, 11, 20))
        asked.fetch_changes(123, date(2026, 11, 20), None)
        root = f"https://exchange.test/api/pro/data/v1/{category}/balance"
        assert [(request.url, request.params) for request in exchange.requests] == [
            (f"{root}/snapshot", {"date": "2026-11-20"}),
            (f"{root}/history", {"sn": "123", "limit": "500"}),
        ]


def test_a_source_reads_its_own_category_only(source: Any, kit: SimpleNamespace) -> None:
    body = kit.answer(kit.page_document([], [])).body
    assert len(source(kit.answer({}))[0].read_page(body)) == 0
    with pytest.raises(InvalidResponse, match=r"meta\.ac is 'cash', but the margin account was asked for"):
        source(kit.answer({}), category="margin")[0].read_page(body)
    with pytest.raises(ValueError, match="futures"):
        source(kit.answer({}), category="futures")


def test_today_is_the_exchange_s_day_once_its_clock_was_seen(source: Any, reply: Any, time: Any) -> None:
    # Ours says noon of the 21st; the exchange's is 13 hours ahead. The answer's own times are around second 1.
    asked, _ = source(reply({"meta": {}}, date="Thu, 01 Jan 1970 13:00:01 GMT"), reply({"meta": {}}))
    assert asked.today() == date(2026, 11, 21)
    assert asked.oldest() == date(2026, 11, 14)
    asked.fetch_changes(1, date(2026, 11, 21), None)
    assert asked.today() == date(2026, 11, 22)
    assert asked.now() == pytest.approx(time.now + 13 * 3600, abs=1)
    asked.fetch_changes(1, date(2026, 11, 21), None)  # an answer that tells no time changes nothing
    assert asked.today() == date(2026, 11, 22)


def test_credentials_that_the_exchange_quotes_back_are_hidden(make: Any, reply: Any) -> None:
    for document in (b"x" * 190 + SECRET.encode(), {"code": 200001, "message": f"{SECRET} is wrong"}):
        quoted = replace(reply(document), secrets=(SECRET,))
        client, _ = make(quoted, budget=None)
        with pytest.raises((InvalidResponse, CredentialsRefused), match=r"\*\*\*") as caught:
            client.get(SNAPSHOT, {})
        assert SECRET[:8] not in str(caught.value)
