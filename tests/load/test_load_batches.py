from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.errors import InvalidAmount
from balance_bridge.load.batches import Limits, Row, batch_id, fits, pack

ENVELOPES = st.sampled_from([(b"[", b"]"), (b'{"accountBalances":[', b"]}")])


def row(index: int, text: str = "1") -> Row:
    return Row(str(index), f"k{index}", "BTC", index, text, "2026-11-20", "close", {"value": text, "n": str(index)})


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 9), st.integers(63, 200), ENVELOPES)
def test_no_row_is_lost_or_doubled_and_no_limit_is_exceeded(sizes, max_rows, max_bytes, envelope):
    rows = [(row(index), b"7" * size) for index, size in enumerate(sizes)]
    limits = Limits(max_rows, max_bytes)
    batches = list(pack(rows, limits, envelope, resend=False))
    assert [each for batch in batches for each in batch.rows] == [each for each, _ in rows]
    assert all(1 <= len(batch.rows) <= max_rows and len(batch.body) <= max_bytes for batch in batches)
    start, end = envelope
    bodies = [batch.body.removeprefix(start).removesuffix(end) for batch in batches]
    assert b",".join(bodies) == b",".join(text for _, text in rows)
    # No batch ends early: the next row would not have fitted.
    texts = dict((each.number, text) for each, text in rows)
    for batch, following in pairwise(batches):
        more = len(batch.body) + 1 + len(texts[following.rows[0].number])
        assert len(batch.rows) == max_rows or more > max_bytes


def test_a_batch_is_known_by_its_numbers_and_content_alone():
    assert batch_id([row(1), row(2)]) == batch_id([row(1), row(2)])
    assert batch_id([row(1), row(2)]) != batch_id([row(2), row(1)])
    assert batch_id([row(1, "1")]) != batch_id([row(1, "2")])
    assert len(batch_id([row(1)])) == 20


def test_a_row_fits_up_to_the_last_byte():
    limits = Limits(9, 12)
    assert fits(b"1234567890", limits, (b"[", b"]"))
    assert not fits(b"12345678901", limits, (b"[", b"]"))


AMOUNTS = st.decimals(min_value=-(10**19), max_value=10**19, places=18, allow_nan=False, allow_infinity=False) | (
    st.integers(-(10**37), 10**37).map(lambda units: Decimal(units).scaleb(-18))
)


@given(st.lists(AMOUNTS, min_size=1, max_size=5))
def test_the_wire_carries_the_identical_amounts_without_float_or_exponent(kit, amounts):
    for make in (kit.elven, kit.amlyze):
        destination = make(kit.FakeTransport(None))
        balances = [kit.balance(f"A{index}", str(amount)) for index, amount in enumerate(amounts)]
        candidates = destination.prepare(balances).candidates
        body = destination.encode(candidate.wire for candidate in candidates).decode()
        # Whatever is neither text nor an integer passes through Decimal; nothing may have an exponent.
        found = json.loads(body, parse_float=Decimal, parse_int=Decimal)
        rows = found if isinstance(found, list) else found["accountBalances"]
        assert [each[destination.amount_field] for each in rows] == amounts
        digits = [f'"{destination.amount_field}":{candidate.amount}' for candidate in candidates]
        assert all(each in body for each in digits)
        assert not any("e" in candidate.amount.lower() or candidate.amount == "-0" for candidate in candidates)


@pytest.mark.parametrize("text", ["1e5", "NaN", "", "01", "+1", "1.", '1,"x":2', "1\n", "--1", "Infinity"])
def test_nothing_but_plain_digits_stands_unquoted_in_a_request(kit, text):
    with pytest.raises(InvalidAmount):
        kit.amlyze(kit.FakeTransport(None)).encode_row({"value": text})
