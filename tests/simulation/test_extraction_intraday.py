"""A day that is followed while it goes on, at any moments, and then its daily run."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import daily, intraday
from balance_bridge.points import BalanceRequest
from balance_bridge.sandbox.world import midnight_ms
from balance_bridge.transform import balances
from simulation import lab

WANTED = [
    BalanceRequest("elven", ["close", "changes"], "Asia/Shanghai", "local_second", lab.DAY),
    BalanceRequest("amlyze", ["open", "changes", "every 1h"], "UTC", "instant", lab.DAY),
]
LATE = (0, 0, 30_000, 59_000, 240_000)


def rows(made: lab.Lab, key: str) -> dict[tuple[str, int], Any]:
    frame = balances.from_parquet(made.store.read(key))
    at_ms = frame["at"].astype("int64[pyarrow]")
    return dict(zip(zip(frame["asset"], at_ms, strict=True), frame["balance"], strict=True))


def close(made: lab.Lab) -> dict[str, dict[tuple[str, int], Any]]:
    """The daily run, and what each destination is to get of it."""
    made.clock.now = midnight_ms(lab.day_after(1)) / 1000 + 600
    done = daily.reconcile(made.job(), made.extract(), tolerance={}, on_break="hold", destinations=WANTED)
    assert done["status"] == "proven"
    return {name: rows(made, key) for name, key in done["balances"].items()}


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    records=st.integers(0, 40),
    moments=st.lists(st.integers(1, 86_390), max_size=8),
    late=st.booleans(),
)
def test_a_followed_day_is_asked_for_once_and_ends_as_if_it_had_not_been_followed(
    seed: int, records: int, moments: list[float], late: bool
) -> None:
    chance = random.Random(seed)
    book = lab.a_book(chance, [records, 4], lags=LATE if late else lab.WITHIN_A_MINUTE_MS)
    with lab.laboratory(book, seed=seed) as alone:
        without = close(alone)
    with lab.laboratory(book, seed=seed) as made:
        told = []
        # Runs between a record's instant and its booking are where too much could be told too early.
        of_day = [(record.at_ms - midnight_ms(lab.DAY)) / 1000 for record in book.records[:records]]
        moments = [chance.choice(of_day) + chance.uniform(20, 65) if of_day and each % 4 else each for each in moments]
        for moment in sorted(moments):
            made.clock.now = max(made.clock.now if told else 0, midnight_ms(lab.DAY) / 1000 + moment)
            if made.clock.now >= midnight_ms(lab.day_after(1)) / 1000:
                break
            found = intraday.run(made.job(run_id=intraday.asked_by(lab.DAY)), WANTED)
            assert found is not None
            told.append((found["until_ms"], {name: rows(made, key) for name, key in found["balances"].items()}))
        final = close(made)
        assert final == without
        # A record that is booked more than a minute after it happened turns out as a correction.
        settled = {
            (leg.asset, record.at_ms)
            for record in book.records
            for leg in record.legs
            if record.visible_ms - record.at_ms > 60_000
        }
        for until_ms, early in told:
            for name, balances_then in early.items():
                # What is told early is all that there is to tell up to then, and stays so.
                due = {key: balance for key, balance in final[name].items() if midnight_ms(lab.DAY) < key[1] < until_ms}
                for asset, at_ms in due.keys() | balances_then.keys():
                    if not any(asset == other and since <= at_ms + 1000 for other, since in settled):
                        assert balances_then.get((asset, at_ms)) == final[name][asset, at_ms]
        # A number is asked for again only where it had brought nothing.
        asked = [request for request in made.asked() if "snapshot" in request]
        assert sorted(asked) == sorted(set(asked))
        assert len(asked) == 2
        for number, sent in enumerate(made.wire.sent):
            if "history" in sent.request and sent.request in made.asked()[:number]:
                cursor = int(sent.request.split("sn=")[1].split("&")[0])
                before = max(each.arrival for each in made.wire.sent[:number] if each.request == sent.request)
                assert book.visible(cursor, int(before * 1000)) == []
        assert made.journal.refusals() == []
