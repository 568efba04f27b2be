"""The documents of a log: what was written is read again, and anything else stops a delivery before it sends."""

from __future__ import annotations

import zlib
from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import delivery_kit as kit
from balance_bridge.errors import OutcomeUnknown, StoreDamaged
from balance_bridge.load.documents import (
    VERSION,
    Action,
    Plan,
    Resolution,
    Result,
    Row,
    Said,
    Try,
    Word,
    decode,
    encode,
)
from balance_bridge.load.log import DayLog, days_with_logs, destinations_with_logs
from doubles import MemoryStore, examples

SOME = settings(max_examples=examples(30), deadline=None)
FOLDER = "receipts/main_cash/2026-11-20/amlyze"
TEXT = st.text(max_size=8)
WORDS = st.builds(Word, st.sampled_from(Said), TEXT, TEXT)
SECONDS = st.floats(0, 4e9, allow_nan=False)
ROWS = st.builds(
    Row,
    TEXT,
    st.integers(-(2**53), 2**53),
    TEXT,
    TEXT,
    st.sampled_from(Action),
    TEXT,
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=3),
    TEXT,
    TEXT,
    st.integers(0, 9),
    TEXT,
)


def plan(rows: list[Row] | None = None, **changes) -> Plan:
    given = {"run_id": "run", "created_at": "now", "generation": "balances/0001", "so_far": False, "read": {}}
    return Plan("main_cash", "2026-11-20", "amlyze", "amlyze", **(given | changes), rows=rows or [])


PLANS = st.builds(plan, st.lists(ROWS, max_size=4), read=st.dictionaries(TEXT, st.integers(0, 9), max_size=2))
TRIES = st.builds(Try, st.integers(1, 99), SECONDS, SECONDS, TEXT)
RESULTS = st.builds(
    Result,
    st.booleans(),
    st.none() | st.integers(1, 99),
    SECONDS,
    st.none() | WORDS,
    st.dictionaries(TEXT, WORDS, max_size=3),
    st.none() | st.integers(100, 599),
    TEXT,
    TEXT,
    st.integers(0, 9),
)
RESOLUTIONS = st.builds(Resolution, TEXT, TEXT, TEXT, st.dictionaries(TEXT, WORDS, max_size=3))
DOCUMENTS = PLANS | TRIES | RESULTS | RESOLUTIONS


@SOME
@given(DOCUMENTS)
def test_what_was_written_is_read_again(document):
    assert decode(encode(document), type(document), "here") == document


@SOME
@given(DOCUMENTS, st.data())
def test_a_document_that_lacks_its_end_is_damaged(document, data):
    whole = encode(document)
    # The very last byte of a text is a newline, which says nothing.
    cut = data.draw(st.integers(0, len(whole) - 2))
    with pytest.raises(StoreDamaged, match="here"):
        decode(whole[:cut], type(document), "here")


@SOME
@given(TRIES | RESULTS | RESOLUTIONS, st.data())
def test_a_document_in_which_a_byte_was_changed_is_damaged(document, data):
    whole = bytearray(encode(document))
    at = data.draw(st.integers(0, len(whole) - 2))
    whole[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    with pytest.raises(StoreDamaged, match="here"):
        decode(bytes(whole), type(document), "here")


@SOME
@given(st.binary(max_size=60), st.sampled_from([Plan, Try, Result, Resolution]), st.booleans())
def test_whatever_else_lies_there_is_damaged(data, kind, packed):
    if packed:
        data = zlib.compress(data, wbits=31)
    with pytest.raises(StoreDamaged, match="here"):
        decode(data, kind, "here")


def test_a_plan_of_many_balances_is_packed_line_by_line_with_one_digest_at_its_end():
    rows = [Row(f"A{index}", index, "1", "close", Action.SEND, number=f"n-{index}", batch=1) for index in range(2500)]
    packed = encode(plan(rows))
    lines = zlib.decompress(packed, 31).splitlines()
    assert len(lines) == 1 + len(rows) + 1
    assert lines[0].startswith(b'{"version":2,')
    assert lines[-1].startswith(b'{"sha256":"')
    assert len(packed) < sum(map(len, lines)) / 4
    assert decode(packed, Plan, "here").rows == rows


def newer(document):
    kind = msgspec.defstruct("Newer", [], bases=(type(document),), tag=VERSION + 1)
    return kind(**msgspec.structs.asdict(document))


def test_a_document_of_another_version_is_named_with_both_versions():
    for document in (plan(), Try(1, 1.0, 1.0, ""), Result(True, 1, 1.0)):
        with pytest.raises(StoreDamaged, match=r"^here has format version 3; this release reads 2"):
            decode(encode(newer(document)), type(document), "here")


# --- the log of a day ---


def delivered():
    """A log with everything in it: two plans, tries, results and a resolution."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(kit.response({"results": []}))), store, [kit.balance()])
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(), kit.balance("ETH")])
    number = next(iter(kit.folded(store).numbers))
    DayLog(store, "main_cash", kit.DAY, "amlyze").put_resolution(
        Resolution("Ada", "asked", "now", {number: Word(Said.ACCEPTED)})
    )
    return store


EVERY = ["plan-0001.jsonl.gz", "plan-0001/0001.try.jsonl", "plan-0001/0001.res.jsonl", "resolved-0001.jsonl"]
DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "changed": lambda data: data[:-70] + bytes([data[-70] ^ 1]) + data[-69:],
    "emptied": lambda data: b"",
    "of another kind": lambda data: b'{"version": 2}\n',
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_receipt_stops_before_anything_is_sent(name, damage):
    store, transport = delivered(), kit.FakeTransport(kit.FakeAmlyzeServer())
    key = f"{FOLDER}/{name}"
    if name.endswith(".gz") and damage == "changed":
        store.objects[key] = zlib.compress(
            zlib.decompress(store.objects[key], 31).replace(b'"1.5"', b'"2.5"'), wbits=31
        )
    else:
        store.objects[key] = DAMAGE[damage](store.objects[key])
    before = dict(store.objects)
    with pytest.raises(StoreDamaged, match=f"{name} is not what was written; nothing was sent"):
        kit.run(kit.amlyze(transport), store, [kit.balance("XRP")])
    assert transport.requests == []
    assert store.objects == before


@pytest.mark.parametrize("name", ["plan-0001.jsonl.gz", "plan-0001/0001.try.jsonl"])
def test_a_missing_receipt_stops_before_anything_is_sent(name):
    store, transport = delivered(), kit.FakeTransport(kit.FakeAmlyzeServer())
    del store.objects[f"{FOLDER}/{name}"]
    with pytest.raises(StoreDamaged, match=f"{name} is missing"):
        kit.run(kit.amlyze(transport), store, [kit.balance("XRP")])
    assert transport.requests == []


@pytest.mark.parametrize("name", EVERY)
def test_a_receipt_of_a_newer_release_stops_before_anything_is_sent(name):
    store, transport = delivered(), kit.FakeTransport(kit.FakeAmlyzeServer())
    kind = {"plan": Plan, "try": Try, "res": Result}.get(name.split(".")[-2], Plan if "plan" in name else Resolution)
    document = decode(store.objects[f"{FOLDER}/{name}"], kind, name)
    store.objects[f"{FOLDER}/{name}"] = encode(newer(document))
    with pytest.raises(StoreDamaged, match=f"{name} has format version 3"):
        kit.run(kit.amlyze(transport), store, [kit.balance("XRP")])
    assert transport.requests == []


@pytest.mark.parametrize("name", ["0123abcd/planned.json", "notes.txt", "plan-0001/0001.res.json", "plan-1.jsonl.gz"])
def test_an_object_that_is_no_part_of_a_log_stops_before_anything_is_sent(name):
    store, transport = delivered(), kit.FakeTransport(kit.FakeAmlyzeServer())
    store.objects[f"{FOLDER}/{name}"] = b"{}"
    with pytest.raises(StoreDamaged, match=f"{name} is not part of a delivery log of this release"):
        kit.run(kit.amlyze(transport), store, [kit.balance("XRP")])
    assert transport.requests == []


def test_a_receipt_changed_by_hand_is_refused_by_name():
    store = delivered()
    key = f"{FOLDER}/plan-0002/0001.res.jsonl"
    store.objects[key] = store.objects[key].replace(b"accepted", b"rejected")
    with pytest.raises(StoreDamaged, match=r"plan-0002/0001\.res\.jsonl is not what was written"):
        kit.folded(store)


def test_a_plan_a_try_and_a_result_are_written_once():
    store = MemoryStore()
    first, second = (DayLog(store, "main_cash", kit.DAY, "amlyze") for _ in range(2))
    assert first.put_plan(1, plan(run_id="first"))
    assert not second.put_plan(1, plan(run_id="second"))
    assert second.read().plans[1].run_id == "first"
    made = Try(1, 0.0, 1.0, "")
    assert first.put_try(1, made) == 1
    with pytest.raises(StoreDamaged, match=r"0001\.try\.jsonl exists already"):
        second.put_try(1, made)
    first.put_result(1, 1, Result(True, 1, 1.0))
    second.put_result(1, 1, Result(False, 1, 2.0))
    assert second.read().results[1, 1].sent


def test_a_log_goes_on_after_plan_9999():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount="1")])
    empty = encode(plan())
    store.objects |= {f"{FOLDER}/plan-{number:04}.jsonl.gz": empty for number in range(2, 10_000)}
    for sent in (1, 0):
        summary = kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount="2")])
        assert summary.requests == sent
    assert f"{FOLDER}/plan-10000/0001.res.jsonl" in store.objects
    assert kit.folded(store).events.newest == 10_000
    assert [str(record["value"]) for record in server.accepted] == ["1", "2"]


def test_a_plan_that_can_neither_be_written_nor_read_stops_before_anything_is_sent():
    store, transport = MemoryStore(), kit.FakeTransport(None)
    put, asked = store.put, []

    def taken(key, data):
        asked.append(key)
        assert len(asked) < 5, "the run spins"
        return "/plan-" not in key and put(key, data)

    store.put = taken
    with pytest.raises(StoreDamaged, match="plan 1 can neither be written nor read"):
        kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert transport.requests == []


def test_a_resolution_is_about_the_tries_that_its_writer_had_read():
    store = delivered()
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    before = log.read().resolutions
    assert [each.read for each in before] == [{}]
    key = log.put_resolution(Resolution("Ada", "asked", "now", {}))
    assert key == f"{FOLDER}/resolved-0002.jsonl"
    assert log.read().resolutions[1].read == {"0001": 1, "0002": 2}


def test_whatever_is_neither_read_nor_written_by_a_run_is_news_to_it():
    store = delivered()
    log, other = (DayLog(store, "main_cash", kit.DAY, "amlyze") for _ in range(2))
    log.read()
    assert not log.has_news()
    log.put_result(2, log.put_try(2, Try(1, 0.0, 1.0, "")), Result(True, 2, 1.0))
    assert log.put_plan(3, plan())
    assert not log.has_news()
    for write in (
        lambda: other.put_try(3, Try(1, 0.0, 1.0, "")),
        lambda: other.put_result(3, 1, Result(True, 3, 1.0)),
        lambda: other.put_plan(4, plan()),
        lambda: other.put_resolution(Resolution("Ada", "asked", "now", {})),
    ):
        write()
        assert log.has_news()
        log.read()
        assert not log.has_news()


def test_a_reader_finds_a_try_that_showed_only_after_its_result():
    store = delivered()
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    listed = [key for key in store.list(FOLDER) if not key.endswith("plan-0001/0001.try.jsonl")]
    store.list = lambda prefix: listed
    assert (1, 1) in log.read().tries


def test_the_days_and_destinations_with_a_log_are_found_beside_the_places():
    store = delivered()
    kit.run(
        kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer()), name="second", account_ext_id="2-{asset}"),
        store,
        [kit.balance()],
        day=date(2026, 11, 19),
    )
    assert days_with_logs(store, "main_cash", "amlyze") == [kit.DAY]
    assert days_with_logs(store, "main_cash", "second") == [date(2026, 11, 19)]
    assert destinations_with_logs(store, "main_cash", kit.DAY) == ["amlyze"]
