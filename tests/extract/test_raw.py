from __future__ import annotations

import gzip
import hashlib
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.transport import Response


@settings(deadline=None)
@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_body_comes_back_byte_for_byte(body: bytes, asked_by: str) -> None:
    answer = Response("GET https://x.test/y?sn=1", 200, {}, body, 1.0, 2.0)
    assert raw.unpack(raw.pack(answer, asked_by=asked_by), "place") == raw.RawResponse(body, asked_by, 1.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("date", "expected"),
    [("Sat, 21 Nov 2026 00:00:00 GMT", 1_795_219_200.0), ("a date", 7.0), ("", 7.0), (None, 7.0)],
)
def test_the_server_s_own_time_counts_where_it_can_be_read(date: str | None, expected: float) -> None:
    answer = Response("GET x", 200, {} if date is None else {"date": date}, b"", 7.0, 8.0)
    assert raw.unpack(raw.pack(answer, asked_by="run"), "place").server_at == expected


def test_an_object_says_what_was_asked_and_when_to_whoever_unpacks_it(kit: SimpleNamespace) -> None:
    answer = kit.answer(b"{}\n\n", 200, request="GET https://x.test/y?sn=1", at_s=1_795_219_200.0, date="a date")
    line, _, body = gzip.decompress(raw.pack(answer, asked_by="run-1 (refetch)")).partition(b"\n")
    assert json.loads(line) == {
        "format": 2,
        "request": "GET https://x.test/y?sn=1",
        "status": 200,
        "sent_at": "2026-11-21T00:00:00.000Z",
        "ended_at": "2026-11-21T00:00:00.250Z",
        "server_date": "a date",
        "asked_by": "run-1 (refetch)",
        "body_sha256": hashlib.sha256(b"{}\n\n").hexdigest(),
    }
    assert body == b"{}\n\n"


def test_the_same_answer_gives_the_same_bytes(kit: SimpleNamespace) -> None:
    answer = kit.answer({"a": 1})
    assert raw.pack(answer, asked_by="run-1") == raw.pack(answer, asked_by="run-1")


def test_headers_are_not_kept(kit: SimpleNamespace) -> None:
    packed = raw.pack(kit.answer({}, set_cookie="session-not-real"), asked_by="run-1")
    assert b"session-not-real" not in gzip.decompress(packed)


def test_an_object_cut_or_changed_anywhere_is_damaged(kit: SimpleNamespace) -> None:
    packed = raw.pack(kit.answer({"meta": "x" * 50}), asked_by="run-1")
    for length in range(len(packed)):
        with pytest.raises(StoreDamaged, match=r"raw/a/1 is damaged.*Run the day"):
            raw.unpack(packed[:length], "raw/a/1")
    for place in range(10, len(packed) - 1):
        changed = packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]
        with pytest.raises(StoreDamaged, match="raw/a/1"):
            raw.unpack(changed, "raw/a/1")


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"null", b"7", b"{", b"\xff", b'{"format": 2}', b'{"asked_by": "x"}']
)
def test_a_header_that_is_none_is_damage(line: bytes) -> None:
    with pytest.raises(StoreDamaged, match="raw/a/1 is damaged"):
        raw.unpack(gzip.compress(line + b"\n{}"), "raw/a/1")


def test_a_format_of_another_release_is_named() -> None:
    with pytest.raises(StoreDamaged, match="raw/a/1 has format 1; this release reads format 2"):
        raw.unpack(gzip.compress(b'{"format": 1, "asked_by": "x"}\n{}'), "raw/a/1")


def test_what_was_changed_by_hand_and_packed_again_is_damaged(kit: SimpleNamespace) -> None:
    packed = raw.pack(kit.answer({"curBalance": "1.5"}), asked_by="run-1")
    changed = gzip.compress(gzip.decompress(packed).replace(b"1.5", b"2.5"))
    with pytest.raises(StoreDamaged, match="raw/a/1 is damaged: its body is not the one that was stored"):
        raw.unpack(changed, "raw/a/1")


def test_a_missing_object_is_named(kit: SimpleNamespace) -> None:
    with pytest.raises(StoreDamaged, match="raw/a/1 is missing"):
        raw.read(kit.MemoryStore(), "raw/a/1")
