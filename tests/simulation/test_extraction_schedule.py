"""When requests go out, how many there are, and that the exchange refuses none: on a clock of its own."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.sandbox.world import midnight_ms
from simulation import lab

SEEDS = st.integers(0, 2**32)
# The clock counts seconds since 1970 in a float, and a budget never waits for less than a millisecond.
CLOSE_S = 0.002


def occupy(made: lab.Lab, chance: random.Random, ended: int, dead: int) -> tuple[list[float], list[float]]:
    """Take slots within the last minute: by requests that ended, and by processes that died with them in hand."""
    budget, ends, starts = made.budget(), [], []
    moments = sorted(chance.uniform(0, 55) for _ in range(ended + dead))
    begin, dying = made.clock.now, set(chance.sample(range(ended + dead), dead))
    for number, moment in enumerate(moments):
        made.clock.now = max(made.clock.now, begin + moment)
        if number in dying:
            starts.append(made.clock.now)
            assert isinstance(budget.try_take(), int)
        else:
            made.source(lab.MAX_INLINE_WAIT_S).fetch_snapshot(lab.DAY)
            ends.append(made.wire.sent[-1].end)
    made.wire.sent.clear()
    return ends, starts


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, records=st.integers(0, 250), ended=st.integers(0, 8), dead=st.integers(0, 8))
def test_every_request_starts_as_soon_as_it_may(seed: int, records: int, ended: int, dead: int) -> None:
    chance = random.Random(seed)
    dead = min(dead, lab.LIMIT - ended)
    book = lab.a_book(chance, [records])
    with lab.laboratory(book, seed=seed) as made:
        ends, held = occupy(made, chance, ended, dead)
        begin = made.clock.now
        found = made.extract()
        sent = made.wire.sent
        expected = lab.schedule([each.end - each.start for each in sent], begin, lab.free_times(ends, held))
        assert [each.start for each in sent] == pytest.approx(expected, rel=0, abs=CLOSE_S * (1 + len(sent) // 8))
        assert made.journal.refusals() == []
        assert len(sent) == 2 + lab.least_pages(book, 1, made.page_limit)
        assert made.legs(found) == lab.of_the_book(book, 0)
        if not ended and not dead:
            windows = (len(sent) - 1) // lab.LIMIT
            took = sum(each.end - each.start for each in sent)
            assert windows * lab.WINDOW_S <= sent[-1].start - begin <= windows * (lab.WINDOW_S + 0.05) + took


@pytest.mark.slow  # two hundred pages, twenty-six windows, each request through the real budget file
def test_a_day_of_two_hundred_pages_keeps_the_schedule_to_the_end() -> None:
    book = lab.a_book(random.Random(3), [997], orders=1)
    with lab.laboratory(book) as made:
        begin = made.clock.now
        made.extract()
        sent = made.wire.sent
        expected = lab.schedule([each.end - each.start for each in sent], begin, [])
        assert [each.start for each in sent] == pytest.approx(expected, rel=0, abs=0.05)
        assert len(sent) == 202
        assert made.journal.refusals() == []


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, counts=st.lists(st.integers(0, 23), min_size=1, max_size=6), limit=st.integers(2, 9))
def test_days_that_are_all_over_take_no_request_more_than_must_be(seed: int, counts: list[int], limit: int) -> None:
    # One day more than is asked for: pages reach into it.
    book = lab.a_book(random.Random(seed), counts)
    days = len(counts) - 1 if len(counts) > 2 else len(counts)
    with lab.laboratory(book, seed=seed, page_limit=limit) as made:
        for number in range(days):
            found = made.extract(number)
            assert made.legs(found) == lab.of_the_book(book, number)
        assert len(made.wire.sent) == days + 1 + lab.least_pages(book, days, limit)
        assert len(set(made.asked())) == len(made.asked())
        assert made.journal.refusals() == []


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, counts=st.lists(st.integers(1, 23), min_size=2, max_size=6), limit=st.integers(2, 9))
def test_days_asked_for_as_they_end_take_no_request_more_than_must_be(seed: int, counts: list[int], limit: int) -> None:
    chance = random.Random(seed)
    book = lab.a_book(chance, counts)
    asked_at_ms = []
    with lab.laboratory(book, seed=seed, page_limit=limit) as made:
        made.wire.slowest_s = 0.0501  # so that an instant stands for a run
        for number in range(len(counts)):
            at_ms = midnight_ms(lab.day_after(number + 1)) + chance.choice((60_000, 3_600_000, 40_000_000))
            made.clock.now = at_ms / 1000
            found = made.extract(number)
            assert made.legs(found) == lab.of_the_book(book, number)
            asked_at_ms.append(at_ms)
        shown_meanwhile = any(
            at_ms < record.visible_ms <= at_ms + 600_000 for at_ms in asked_at_ms for record in book.records
        )
        if not shown_meanwhile:
            assert len(made.wire.sent) == len(counts) + 1 + lab.least_pages_day_by_day(book, asked_at_ms, limit)
        assert len(set(made.asked())) == len(made.asked())


def run_deferring(made: lab.Lab, chance: random.Random) -> tuple[lab.Deferred, dict[str, Any]]:
    """The three tasks of a day, each giving up its worker while it waits."""
    from balance_bridge import daily

    waits = lab.Deferred()

    def job() -> daily.Job:
        return made.job(patience_s=lab.MAX_INLINE_WAIT_S)

    for which in ("opening", "closing"):
        lab.deferring(lambda which=which: daily.fetch_snapshot(job(), which), made.clock, chance, waits)
    history = lab.deferring(lambda: daily.fetch_history(job(), {}), made.clock, chance, waits)
    return waits, history


def utilisation(sent: list[lab.Sent]) -> float:
    """The time that so many requests take at least, over the time that they took, from the first to the last start."""
    return (len(sent) - 1) // lab.LIMIT * lab.WINDOW_S / (sent[-1].start - sent[0].start)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, pages=st.integers(20, 45), ended=st.integers(0, 8), dead=st.integers(0, 2))
def test_a_task_that_gives_up_its_worker_asks_for_nothing_twice_and_is_never_away_for_little(
    seed: int, pages: int, ended: int, dead: int
) -> None:
    chance = random.Random(seed)
    book = lab.a_book(chance, [pages * 5], orders=1)
    with lab.laboratory(book, seed=seed) as made:
        made.wire.slowest_s = 1.0
        occupy(made, chance, min(ended, lab.LIMIT - dead), dead)
        waits, found = run_deferring(made, chance)
        sent = made.wire.sent
        assert len(sent) == 2 + pages
        assert made.journal.refusals() == []
        assert made.legs(found) == lab.of_the_book(book, 0)
        # Slots that others took keep their spacing: then there may be several waits in a window, each a long one.
        assert waits.times * lab.MAX_INLINE_WAIT_S <= waits.away_s + lab.LEAD_S * waits.times
        if not dead and not ended:
            assert waits.times <= (len(sent) - 1) // lab.LIMIT


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, windows=st.integers(5, 9), patient=st.booleans())
def test_the_budget_is_used_up(seed: int, windows: int, patient: bool) -> None:
    chance = random.Random(seed)
    # The last request is the first of a window, so that every window before it is a whole one.
    book = lab.a_book(chance, [(windows * lab.LIMIT - 1) * 5], orders=1)
    with lab.laboratory(book, seed=seed) as made:
        made.wire.slowest_s = 1.0
        if patient:
            made.extract()
            assert utilisation(made.wire.sent) >= 0.97
        else:
            waits, _ = run_deferring(made, chance)
            assert utilisation(made.wire.sent) >= 0.90
            assert waits.times <= windows
        assert len(made.wire.sent) == windows * lab.LIMIT + 1
        assert made.journal.refusals() == []
