from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import Contradiction, InvalidResponse
from balance_bridge.extract import paging
from balance_bridge.extract.paging import NO_END, Step, Walk, top_of
from balance_bridge.extract.source import Page

LIMIT = 6
# Records of one event at most, so that a page always holds more than one event.
GROUP = 2


@dataclass(frozen=True)
class Item:
    sn: int
    content: str = ""
    shares_sn: bool = False


@dataclass
class Server:
    """Serves a history in every way that the documentation leaves open.

    Attributes:
        cap: Serves at most so many records, whatever the limit.
    """

    lists: Sequence[Sequence[Item]]
    per_list: bool = False
    arrangement: str = "newest first"
    repeated: int = 0
    overlap: int = 0
    cap: int = LIMIT
    seed: int = 0

    def __post_init__(self) -> None:
        self.cursors: list[int] = []
        # Full pages that hold nothing but repeats are beyond any client.
        if self.overlap * GROUP + GROUP + 2 * self.repeated >= self.cap:
            self.repeated = 0

    def page_at(self, cursor: int) -> Page:
        self.cursors.append(cursor)
        chance = random.Random(self.seed + cursor)
        # Records from before the cursor that are sent once more, at the expense of new ones.
        everything = sorted((item for items in self.lists for item in items), key=lambda item: item.sn)
        begin = ([item.sn for item in everything if item.sn < cursor][-self.overlap :] or [cursor])[0]
        begin = begin if self.overlap else cursor
        if self.per_list:
            cut = [[item for item in items if item.sn >= begin][: self.cap] for items in self.lists]
        else:
            served = [item for item in everything if item.sn >= begin][: self.cap]
            cut = [[item for item in served if item.shares_sn == bool(place)] for place in range(2)]
        return Page("account", tuple(self._arrange(chance, items) for items in cut))

    def _arrange(self, chance: random.Random, items: list[Item]) -> list[Item]:
        twice = items + [replace(item) for item in items[: self.repeated]]
        if self.arrangement == "shuffled":
            chance.shuffle(twice)
            return twice
        return sorted(twice, key=lambda item: item.sn, reverse=self.arrangement == "newest first")


@st.composite
def histories(draw: st.DrawFn) -> list[list[Item]]:
    lists: list[list[Item]] = [[], []]
    sn = draw(st.integers(0, 2**40))
    # Runs in one list, so that one of them is often full while the other is not.
    for place, run in draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), max_size=8)):
        for _ in range(run):
            sn += draw(st.sampled_from([1, 1, 1, 2, 1000]))
            count = draw(st.sampled_from([1, 1, GROUP])) if place else 1
            lists[place] += [Item(sn, f"record {number} of {sn}", shares_sn=bool(place)) for number in range(count)]
    return lists


servers = st.builds(
    Server,
    lists=histories(),
    per_list=st.booleans(),
    arrangement=st.sampled_from(["newest first", "oldest first", "shuffled"]),
    repeated=st.integers(0, 2),
    overlap=st.integers(0, 1),
    seed=st.integers(0, 1000),
)


def steps(server: Server, opening: int, closing: int, *, to_empty: bool = False) -> list[Step]:
    walk = Walk(LIMIT, closing, to_empty=to_empty)
    return list(walk.steps(lambda at: (server.page_at(at), True), opening + 1))


def taken(step: Step, closing: int = NO_END) -> list[Item]:
    """What the page is good for, each record once."""
    found = {item for items in step.page.lists for item in items if step.cursor <= item.sn < min(step.end, closing + 1)}
    return sorted(found, key=lambda item: (item.sn, item.content))  # type: ignore[attr-defined]


def draw_span(data: st.DataObject, server: Server) -> tuple[list[Item], int, int]:
    """What the server has, and the numbers of two snapshots: on a record's, between two, before or behind all."""
    everything = sorted({item for items in server.lists for item in items}, key=lambda item: (item.sn, item.content))
    places = [0, *(item.sn for item in everything), *(item.sn + 1 for item in everything)]
    opening, closing = sorted((data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))))
    return everything, opening, closing


@settings(max_examples=100, deadline=None)
@given(servers, st.data())
def test_every_record_of_the_day_is_delivered_once_whatever_the_exchange_leaves_open(
    server: Server, data: st.DataObject
) -> None:
    everything, opening, closing = draw_span(data, server)
    delivered = [item for step in steps(server, opening, closing) for item in taken(step, closing)]
    wanted = [item for item in everything if opening < item.sn <= closing]
    # A part of the closing event itself may be missing: that shows when the day does not add up.
    assert [item for item in delivered if item.sn < closing] == [item for item in wanted if item.sn < closing]
    assert set(delivered) <= set(wanted)
    assert server.cursors == sorted(set(server.cursors))
    # Bounded: every page but the last two brings new records, as many as it has room for.
    beyond = sum(item.sn > opening for item in everything)
    assert len(server.cursors) <= beyond // (1 if server.repeated else LIMIT - server.overlap - GROUP) + 2
    if not (server.per_list or server.repeated or server.overlap):
        assert server.cursors == needed_cursors(everything, opening, closing)


def needed_cursors(everything: list[Item], opening: int, closing: int) -> list[int]:
    """What a client would ask that knew how this server pages: one number again at most, and not one request more."""
    cursors, cursor = [], opening + 1
    while opening != closing:
        cursors.append(cursor)
        page = [item for item in everything if item.sn >= cursor][:LIMIT]
        if len(page) < LIMIT or page[-1].sn >= closing:
            break
        cursor = page[-1].sn + (not page[-1].shares_sn)
    return cursors


@settings(max_examples=100, deadline=None)
@given(servers, st.integers(GROUP + 2, LIMIT), st.data())
def test_paging_on_to_an_empty_page_misses_nothing_of_an_exchange_that_caps_its_pages(
    server: Server, cap: int, data: st.DataObject
) -> None:
    # A page of nothing but repeats would look like the end.
    server = replace(server, cap=cap, overlap=0)
    everything, opening, closing = draw_span(data, server)
    found = steps(server, opening, closing, to_empty=True)
    wanted = [item for item in everything if opening < item.sn <= closing]
    assert [item for step in found for item in taken(step, closing)] == wanted
    # What was fetched so is read so again, by its cursors alone.
    pages = {step.cursor: step.page for step in found}
    again = Walk(LIMIT, closing, sorted(pages)).steps(lambda at: (pages[at], True), opening + 1)
    assert [item for step in again for item in taken(step, closing)] == wanted


def single(*sns: int, **options: Any) -> Server:
    return Server([[Item(sn) for sn in sns], []], **options)


def asked(server: Server, opening: int, closing: int, **options: Any) -> tuple[list[int], list[int]]:
    sns = [item.sn for step in steps(server, opening, closing, **options) for item in taken(step, closing)]
    return server.cursors, sns


@pytest.mark.parametrize(
    ("sns", "opening", "closing", "cursors", "found"),
    [
        ((1, 2, 3), 2, 2, [], []),
        ((1, 2, 3, 4), 0, 99, [1], [1, 2, 3, 4]),
        ((1, 2, 3, 4, 5, 6, 7, 8), 0, 6, [1], [1, 2, 3, 4, 5, 6]),
        ((1, 2, 3, 4, 5, 9), 0, 7, [1], [1, 2, 3, 4, 5]),
        ((1, 2, 3, 4, 5, 6), 0, 7, [1, 7], [1, 2, 3, 4, 5, 6]),
        (tuple(range(1, 14)), 0, 12, [1, 7], list(range(1, 13))),
        ((), 10, 20, [11], []),
        ((21, 22), 10, 20, [11], []),
    ],
    ids=[
        "equal numbers: nothing",
        "a page that is not full is the last",
        "a full page that ends at the closing number is the last",
        "a full page that reaches past it is the last",
        "a full page that ends before it is followed",
        "two full pages",
        "nothing happened",
        "nothing happened in the day",
    ],
)
def test_no_page_is_fetched_that_is_not_needed(
    sns: tuple[int, ...], opening: int, closing: int, cursors: list[int], found: list[int]
) -> None:
    assert asked(single(*sns), opening, closing) == (cursors, found)


def test_an_event_that_a_full_page_cuts_is_complete_with_the_next_one() -> None:
    event = [Item(6, "one", shares_sn=True), Item(6, "two", shares_sn=True)]
    server = Server([[Item(sn) for sn in range(1, 6)], [*event, Item(9, shares_sn=True)]])
    found = [item for step in steps(server, 0, 9) for item in taken(step, 9)]
    assert server.cursors == [1, 6]
    assert [item for item in found if item.sn == 6] == event


def test_pages_below_the_limit_end_a_day_unless_it_is_followed_to_an_empty_one() -> None:
    assert asked(single(1, 2, 3, 4, 5, 7, cap=3), 0, 7) == ([1], [1, 2, 3])
    assert asked(single(1, 2, 3, 4, 5, 7, cap=3), 0, 9, to_empty=True) == ([1, 4, 8], [1, 2, 3, 4, 5, 7])
    assert asked(single(1, 2, 3, 4, 5, 7, cap=3), 0, 7, to_empty=True) == ([1, 4], [1, 2, 3, 4, 5, 7])


def test_a_list_that_is_full_by_itself_holds_back_the_other_one() -> None:
    orders, changes = [Item(sn) for sn in range(1, 15)], [Item(100), Item(200)]
    server = Server([orders, changes], per_list=True)
    found = [[item.sn for item in taken(step)] for step in steps(server, 0, 300)]
    assert server.cursors == [1, 7, 13]
    assert found == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 100, 200]]


def page(*lists: Sequence[int]) -> Page:
    return Page("a", tuple([Item(sn) for sn in sns] for sns in lists))


def test_a_page_is_believed_up_to_where_one_of_its_lists_may_have_been_cut() -> None:
    assert top_of(page((1, 3, 5, 7, 9), (2, 4, 6, 8, 20)), 5) == 9
    for limit in (5, 6):
        assert top_of(page((1, 3, 5), (2, 20)), limit) == 20
    assert top_of(page((), ()), 5) == -1


def test_records_before_the_cursor_and_behind_the_closing_number_are_not_taken() -> None:
    walk = Walk(9, 12).steps(lambda _: (page((8, 12, 10), (11, 13)), True), 10)
    assert [[item.sn for item in taken(step, 12)] for step in walk] == [[10, 11, 12]]


def test_a_full_page_that_holds_nothing_new_is_an_error_and_no_loop() -> None:
    told = r"the page from sn 6 is full \(5 records\) but holds nothing from there on, the largest sn is 5"
    with pytest.raises(Contradiction, match=told):
        list(Walk(5, 100).steps(lambda _: (page(range(1, 6)), True), 1))


def test_one_number_with_two_contents_in_two_pages_is_an_error() -> None:
    pages = {1: Page("a", ([Item(sn, "old") for sn in range(1, 7)],)), 7: Page("a", ([Item(5, "new"), Item(7)],))}
    with pytest.raises(InvalidResponse, match="sn 5 comes twice with different content"):
        list(Walk(LIMIT, 100).steps(lambda at: (pages[at], True), 1))


def test_a_repeat_with_the_same_content_is_taken_once() -> None:
    pages = {1: page((1, 2, 2, 3, 4, 5)), 6: page((5, 6, 6))}
    found = list(Walk(LIMIT, 100).steps(lambda at: (pages[at], True), 1))
    assert [[item.sn for item in taken(step)] for step in found] == [[1, 2, 3, 4, 5], [6]]


def test_paging_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 7)
    with pytest.raises(InvalidResponse, match="the changes do not end: 7 pages and still going at sn 36"):
        list(Walk(5).steps(lambda cursor: (page(range(cursor, cursor + 5)), True), 1))


def test_a_page_is_fetched_only_when_the_one_before_was_taken() -> None:
    server = single(*range(1, 30))
    found = Walk(LIMIT, 99).steps(lambda at: (server.page_at(at), True), 1)
    assert server.cursors == []
    next(found)
    assert server.cursors == [1]
    next(found)
    assert server.cursors == [1, 7]


@settings(max_examples=100, deadline=None)
@given(servers, st.data())
def test_a_day_fetched_while_it_goes_on_is_the_day_fetched_afterwards(server: Server, data: st.DataObject) -> None:
    everything, _, _ = draw_span(data, server)
    lists, found, cursor = server.lists, list[Item](), 1
    # Each round shows a longer part of the history; the last one all of it.
    rounds = sorted(data.draw(st.lists(st.sampled_from([0, *(item.sn for item in everything)]), max_size=4)))
    for seen in (*rounds, NO_END):
        server.lists = [[item for item in items if item.sn <= seen] for items in lists]
        for step in Walk(LIMIT).steps(lambda at: (server.page_at(at), True), cursor):
            found += taken(step)
            cursor = step.end
    assert found == everything


def test_an_event_at_the_cut_that_comes_again_with_other_content_is_a_contradiction() -> None:
    first = Page("a", ([Item(1), Item(2), Item(3, "EUR +7", shares_sn=True)],))
    second = Page("a", ([Item(3, "EUR -5", shares_sn=True)],))
    pages = {1: (first, True), 3: (second, True)}
    with pytest.raises(Contradiction, match="sn 3 comes twice with different content"):
        list(Walk(3, 5).steps(pages.__getitem__, 1))


def test_a_page_that_was_fetched_too_early_is_followed_by_another() -> None:
    pages = {1: (page((1, 2), ()), False), 3: (page((7,), ()), True)}
    found = list(Walk(LIMIT, 5).steps(pages.__getitem__, 1))
    assert [[item.sn for item in taken(step, 5)] for step in found] == [[1, 2], []]


def test_an_early_page_with_nothing_in_it_is_no_loop() -> None:
    with pytest.raises(
        Contradiction, match="the page from sn 1 holds nothing from there on, and yet it is not the last"
    ):
        list(Walk(LIMIT, 5).steps(lambda _: (page((), ()), False), 1))


@settings(max_examples=100, deadline=None)
@given(histories(), st.data())
def test_a_record_that_the_server_withholds_is_missing_and_never_made_up(
    lists: list[list[Item]], data: st.DataObject
) -> None:
    """Paging cannot see a loss; the chain of balances can. It must not hide it by a repeat or a gap of its own."""
    everything = sorted({item for items in lists for item in items}, key=lambda item: (item.sn, item.content))
    lost = data.draw(st.sets(st.sampled_from(everything or [Item(0)])))
    server = Server([[item for item in items if item not in lost] for items in lists])
    found = [item for step in steps(server, 0, 2**50) for item in taken(step)]
    assert found == [item for item in everything if item not in lost]
