"""The connection test of each type, against the sandbox: it says what was seen, and never a secret."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from balance_bridge.clock import Clock
from balance_bridge.extract.ascendex import AscendexClient
from balance_bridge.hooks.amlyze import AmlyzeHook
from balance_bridge.hooks.ascendex import AscendexHook
from balance_bridge.hooks.elven import ElvenHook
from balance_bridge.sandbox.server import Sandbox, connections

HOOKS = {"ascendex_cash": AscendexHook, "elven_default": ElvenHook, "amlyze_default": AmlyzeHook}
Test = Callable[..., tuple[bool, str]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr("balance_bridge.hooks.transport.mask_secret", found.append)
    return found


@pytest.fixture
def test(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, naps: list[float]) -> Test:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__BUDGET", f"sqlite:///{tmp_path}/budget.db")
    client = functools.partial(AscendexClient, clock=Clock(sleep=naps.append))
    monkeypatch.setattr("balance_bridge.hooks.ascendex.AscendexClient", client)

    def run(conn_id: str, **fields: Any) -> tuple[bool, str]:
        right = connections(sandbox.url)[conn_id]
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**right, **fields}))
        works, message = HOOKS[conn_id](conn_id).test_connection()
        for secret in (right["login"], right["password"], fields.get("password")):
            assert not secret or secret not in message
        return works, message

    return run


class Html(BaseHTTPRequestHandler):
    """A server that is no API at all."""

    def do_GET(self) -> None:
        # The whole request is read first: to close with unread bytes would reset the connection.
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b"<html><head><title>Welcome to nginx!</title></head></html>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def html_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Html)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("conn_id", HOOKS)
def test_a_right_connection_works_and_says_what_was_seen(test: Test, sandbox: Sandbox, conn_id: str) -> None:
    works, message = test(conn_id)
    assert works, message
    seen = {
        "ascendex_cash": f"{sandbox.url} accepts this key",
        "elven_default": "Elven took key and signature",
        "amlyze_default": "Amlyze took the token",
    }
    assert seen[conn_id] in message


def test_the_connection_test_leaves_no_trace(test: Test, sandbox: Sandbox) -> None:
    for conn_id in HOOKS:
        test(conn_id)
    arrived = sandbox.delivered()
    assert not arrived["elven"]
    assert not arrived["amlyze"]
    assert not sandbox.elven.oddities
    # A connection test is no reason to use up slots of the exchange's window.
    assert not [line for line in sandbox.journal.requests if "/balance/" in line.path]


@pytest.mark.parametrize("conn_id", HOOKS)
def test_a_wrong_secret_is_reported_as_such(test: Test, conn_id: str) -> None:
    works, message = test(conn_id, password="not-the-secret")
    assert not works
    assert "401" in message
    assert "secret" in message or "token" in message


@pytest.mark.parametrize("conn_id", HOOKS)
def test_without_a_network_the_address_is_named(test: Test, closed_port: int, naps: list[float], conn_id: str) -> None:
    works, message = test(conn_id, host=f"http://127.0.0.1:{closed_port}")
    assert not works
    assert f"127.0.0.1:{closed_port}" in message
    assert "no connection" in message


@pytest.mark.parametrize("conn_id", HOOKS)
def test_a_server_that_answers_html_is_shown(test: Test, html_url: str, conn_id: str) -> None:
    works, message = test(conn_id, host=html_url)
    assert not works
    assert "Welcome to nginx!" in message


@pytest.mark.parametrize("conn_id", HOOKS)
def test_a_connection_that_is_wrong_fails_its_test_with_a_message(test: Test, conn_id: str) -> None:
    works, message = test(conn_id, host="https://api.example?x")
    assert not works
    assert "is not a base URL" in message


@pytest.mark.parametrize("conn_id", HOOKS)
def test_keys_tokens_and_signatures_are_masked_before_they_go_out(test: Test, masked: list[str], conn_id: str) -> None:
    works, _ = test(conn_id)
    assert works
    if conn_id == "amlyze_default":
        assert any("sandbox-amlyze-token-not-real" in text for text in masked)
    else:
        key = {"ascendex_cash": "sandbox-cash-key", "elven_default": "sandbox-elven-key"}[conn_id]
        assert key in masked
        # A signature of HMAC-SHA256 in base64.
        assert any(len(text) == 44 and text.endswith("=") for text in masked)
