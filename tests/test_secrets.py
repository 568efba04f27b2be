"""What servers say back never carries a key, a signature or a token into a message, a log or the store."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import delivery_kit as kit
from balance_bridge.clock import Clock
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.extract.ascendex import AscendexClient
from balance_bridge.load.destination import Destination
from balance_bridge.store import Store
from balance_bridge.transport import Credentials, Response, Transport, credentials

KEY, SECRET, TOKEN = "key-4c1d7a", "secret-90aa12", "token-77fe03"
CLOCK = Clock(sleep=lambda _: None)
Say = Callable[[str], tuple[int, Any]]


@contextmanager
def parrot(say: Say) -> Iterator[tuple[str, list[str]]]:
    """A server that says back every header that it gets, in an answer of the given form."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = " ".join(f"{name}={value}" for name, value in self.headers.items())
            heard.append(said)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, document = say(said)
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-request-id", said)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()
            thread.join()


def sent_secrets(heard: list[str]) -> set[str]:
    """The credentials that really went out, signatures included."""
    headers = [dict(part.split("=", 1) for part in said.split(" ") if "=" in part) for said in heard]
    found = {secret for each in headers for secret in credentials(each)}
    return {KEY, SECRET, TOKEN} | {secret for secret in found if secret != "Bearer"}


def assert_silent(heard: list[str], *texts: str) -> None:
    assert heard
    secrets = sent_secrets(heard)
    for text in texts:
        assert not [secret for secret in secrets if secret in text]


EXCHANGE: dict[str, Say] = {
    "an error": lambda said: (401, {"code": 200001, "reason": "AUTHENTICATION_FAILED", "message": said}),
    "an error with status 200": lambda said: (200, {"code": 100006, "reason": said, "message": said}),
    "an error of which the code quotes": lambda said: (400, {"code": said, "message": "no"}),
    "what is no envelope": lambda said: (200, {"code": [said], "message": said}),
    "a page in HTML": lambda said: (200, f"<html>{said}".encode()),
    "a fault": lambda said: (500, said.encode()),
}


@pytest.mark.parametrize("how", EXCHANGE)
def test_what_the_exchange_says_back_is_clean(how: str) -> None:
    reported: list[str] = []
    with parrot(EXCHANGE[how]) as (url, heard):
        transport = Transport()
        client = AscendexClient(transport, Credentials(url, KEY, SECRET), clock=CLOCK, log=reported.append)
        with pytest.raises(BalanceBridgeError) as caught:
            client.get("data/v1/cash/balance/snapshot", {"date": "2026-11-20"})
    assert_silent(heard, str(caught.value), str(caught.value.__cause__), *reported)


DESTINATIONS: dict[str, Say] = {
    "a refusal": lambda said: (
        400,
        {"status": "failed", "data": {"code": said, "message": said}, "errorCode": said, "errorDescription": said},
    ),
    "a refusal with status 200": lambda said: (200, {"status": "failed", "data": {"code": 1, "message": said}}),
    "a wrong key": lambda said: (401, {"error": {"code": said}, "data": {"message": said}}),
    "a page in HTML": lambda said: (200, f"<html>{said}".encode()),
    "a fault": lambda said: (500, {"status": "failed", "error": said, "data": {"message": said}}),
}


def elven(url: str, transport: Transport) -> Destination:
    return kit.elven(transport, url=url, key=KEY, secret=SECRET, clock=CLOCK)


def amlyze(url: str, transport: Transport) -> Destination:
    return kit.amlyze(transport, url=url, secret=TOKEN)


@pytest.mark.parametrize("make", [elven, amlyze])
@pytest.mark.parametrize("how", DESTINATIONS)
def test_what_a_destination_says_back_reaches_neither_message_nor_receipt(
    tmp_path: Path, how: str, make: Callable[[str, Transport], Destination]
) -> None:
    reported: list[str] = []
    with parrot(DESTINATIONS[how]) as (url, heard):
        transport = Transport()
        with pytest.raises(BalanceBridgeError) as caught:
            kit.run(make(url, transport), Store(tmp_path), [kit.balance()], clock=CLOCK, log=reported.append)
    receipts = [path.read_text() for path in tmp_path.rglob("*.jsonl")]
    receipts += [zlib.decompress(path.read_bytes(), 31).decode() for path in tmp_path.rglob("*.jsonl.gz")]
    assert len(receipts) == 5, "the place, its owner, the plan, a try and its result"
    assert_silent(heard, str(caught.value), *reported, *receipts)


def test_a_secret_is_found_before_a_text_is_cut() -> None:
    body = b"x" * 195 + SECRET.encode()
    answer = Response("GET /", 500, {}, body, 0, 0, (SECRET,))
    assert SECRET[:5] not in answer.describe_body()
