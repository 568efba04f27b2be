"""What a response says, whatever it looks like: facts, cleaned, and in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import delivery_kit as kit
from balance_bridge.errors import CredentialsRefused, InvalidResponse, RateLimited, RequestRefused, ServerFault
from balance_bridge.load.destination import response_bytes
from balance_bridge.load.documents import Said, Word
from balance_bridge.load.elven_setup import create_source, problems
from balance_bridge.load.replies import Reply
from balance_bridge.transport import Credentials, Response

Send = Callable[..., Reply]


@pytest.fixture
def send() -> Send:
    """Send two records to Elven (or another destination), which get a response."""

    def sent(document: Any = None, status: int = 200, *, to: str = "elven", **options: Any) -> Reply:
        return getattr(kit, to)(kit.FakeTransport(kit.response(document, status, **options))).send(b"[]", ["n1", "n2"])

    return sent


@pytest.mark.parametrize(
    ("status", "said", "stop"),
    [
        (301, Said.NOTHING, RequestRefused),
        (303, Said.NOTHING, RequestRefused),
        (400, Said.REJECTED, None),
        (401, Said.REJECTED, CredentialsRefused),
        (403, Said.REJECTED, CredentialsRefused),
        (404, Said.REJECTED, RequestRefused),
        (407, Said.REJECTED, None),
        (408, Said.NOTHING, ServerFault),
        (409, Said.REJECTED, None),
        (413, Said.REJECTED, None),
        (451, Said.REJECTED, None),
        (500, Said.NOTHING, ServerFault),
        (504, Said.NOTHING, ServerFault),
        (100, Said.NOTHING, InvalidResponse),
    ],
)
def test_a_status_is_about_the_request_as_a_whole_and_about_no_record(
    send: Send, status: int, said: Said, stop: Any
) -> None:
    reply = send({}, status)
    assert reply.result.whole is not None
    assert (reply.result.http_status, reply.result.whole.said, reply.result.records) == (status, said, {})
    assert reply.stop is None if stop is None else isinstance(reply.stop, stop)


def test_429_applied_nothing_and_says_when_to_come_back(send: Send) -> None:
    with pytest.raises(RateLimited) as caught:
        send({}, 429, retry_after="7")
    assert caught.value.wait_s == 7


def test_what_is_about_records_says_nothing_about_the_whole(send: Send) -> None:
    results = [
        {
            "communicationNumber": "n2",
            "resultType": "REQUEST_REJECTED",
            "errorCode": "O005",
            "errorDescription": "used",
        },
        {"communicationNumber": "n3", "resultType": "REQUEST_ACCEPTED"},
        {"communicationNumber": ["n1"], "resultType": "REQUEST_ACCEPTED"},
    ]
    reply = send({"results": results}, to="amlyze")
    assert (reply.result.whole, reply.result.foreign, reply.stop) == (None, 2, None)
    assert reply.result.records == {"n2": Word(Said.USED, "O005", "used")}


def test_texts_from_outside_are_one_line_bounded_and_without_secrets(send: Send) -> None:
    said = f"line\nbreak \x1b[31m {kit.SECRET} " + "x" * 9999
    reply = send({"status": "failed", "data": {"code": said, "message": said}, "requestId": said}, 400)
    assert reply.result.whole is not None
    for text, longest in (
        (reply.result.whole.code, 61),
        (reply.result.whole.text, 501),
        (reply.result.request_id, 201),
    ):
        assert text.startswith("line break")
        assert text.isprintable()
        assert kit.SECRET not in text
        assert len(text) <= longest


def test_an_undocumented_document_is_not_quoted_with_a_secret(send: Send) -> None:
    for document in ({kit.SECRET: kit.SECRET}, {"status": kit.SECRET, "success": True}, kit.SECRET):
        reply = send(document)
        assert isinstance(reply.stop, InvalidResponse)
        assert kit.SECRET not in f"{reply.stop} {reply.result.whole}"
        assert reply.stop.__cause__ is reply.stop.__context__ is None


@pytest.mark.parametrize("location", ["https://{}@a.test/x", "https://{}.test/x?{}", "//{}/x", "{}", "https://[{}"])
def test_a_redirect_does_not_show_a_secret_in_whatever_case(send: Send, location: str) -> None:
    reply = send({}, 302, location=location.replace("{}", kit.SECRET.upper()))
    assert kit.SECRET not in str(reply.stop).lower()


@pytest.mark.parametrize("rows", [1, 2000])
@pytest.mark.parametrize("piece", [b"{},", b"[],", b"0,", b'{"a":0},'])
def test_the_largest_response_that_is_read_takes_no_more_than_a_few_kilobytes_per_row(rows: int, piece: bytes) -> None:
    size = response_bytes(rows)
    body = b"[" + piece * (size // len(piece) - 2) + b"0]"
    destination = kit.amlyze(kit.FakeTransport(Response("POST https://there.test", 200, {}, body, 0, 0)))
    numbers = [f"n{index}" for index in range(rows)]
    tracemalloc.start()
    try:
        reply = destination.send(b"", numbers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(reply.stop, InvalidResponse)
    assert peak < 2**20 + 3 * size


def test_documented_results_of_the_largest_request_are_read() -> None:
    numbers = [f"bb-main_cash.amlyze-ASSET-20261121T000000000Z-{index}" for index in range(10_000)]
    text, name = "reason, " * 12, "\N{GREEK SMALL LETTER ALPHA}" * 255
    results = [
        {"resultType": "REQUEST_REJECTED", "communicationNumber": number, "accountExtId": name, "businessUnit": "b"}
        | {"errorCode": "O001", "errorDescription": text, "timeElapsedMs": 200}
        for number in numbers
    ]
    body = json.dumps({"results": results, "timeElapsedMs": 9}).encode()
    assert len(body) < response_bytes(len(numbers))
    reply = kit.amlyze(kit.FakeTransport(kit.response(body=body))).send(b"", numbers)
    assert len(reply.result.records) == 10_000


def test_what_elven_lists_is_shown_without_secrets_and_on_one_line() -> None:
    name = f"main\n{kit.SECRET}"
    listed = {"list": [{"entityAccountId": "OTHER", "name": name}], "total": 1}
    (problem,) = problems(kit.elven(kit.FakeTransport(kit.response(listed))))
    assert "OTHER (main ***)" in problem
    with pytest.raises(RequestRefused) as caught:
        create_source(kit.elven(kit.FakeTransport(kit.response({"type": name}))), entity_account_id="E", name="n")
    assert kit.SECRET not in str(caught.value)


def test_credentials_name_what_must_not_be_shown() -> None:
    assert Credentials("https://a.test", "", "token").secrets == ("token",)
    assert Credentials("https://a.test", "key", "secret").secrets == ("key", "secret")
