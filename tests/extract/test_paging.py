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
from balance_bridge.extract.paging import end_of, read_step, walk
from balance_bridge.extract.source import Page

LIMIT = 5


@dataclass(frozen=True)
class Item:
    sn: int
    content: str = ""


@dataclass
class Server:
    """Serves a history in every way that the documentation leaves open."""

    lists: Sequence[Sequence[Item]]
    per_list: bool = False
    arrangement: str = "newest first"
    repeated: int = 0
    overlap: int = 0
    limit: int = LIMIT
    seed: int = 0

    def __post_init__(self) -> None:
        self.cursors: list[int] = []

    def page_at(self, cursor: int) -> Page:
        self.cursors.append(cursor)
        chance = random.Random(self.seed + cursor)
        # Records from before the cursor that are sent once more, at the expense of new ones.
        everything = sorted(item.sn for items in self.lists for item in items)
        begin = ([sn for sn in everything if sn < cursor][-self.overlap :] or [cursor])[0] if self.overlap else cursor
        served = [[item for item in items if item.sn >= begin] for items in self.lists]
        if self.per_list:
            cut = [items[: self.limit] for items in served]
        else:
            allowed = {
                item.sn for item in sorted((i for items in served for i in items), key=lambda i: i.sn)[: self.limit]
            }
            cut = [[item for item in items if item.sn in allowed] for items in served]
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
    for place, run in draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 8)), max_size=8)):
        for _ in range(run):
            sn += draw(st.sampled_from([1, 1, 1, 2, 1000]))
            lists[place].append(Item(sn, f"record {sn}"))
    return lists


servers = st.builds(
    Server,
    lists=histories(),
    per_list=st.booleans(),
    arrangement=st.sampled_from(["newest first", "oldest first", "shuffled"]),
    repeated=st.integers(0, 2),
    overlap=st.integers(0, LIMIT - 1),
    limit=st.just(LIMIT),
    seed=st.integers(0, 1000),
)


@settings(max_examples=200, deadline=None)
@given(servers, st.data())
def test_every_record_of_the_day_is_delivered_once_whatever_the_exchange_leaves_open(
    server: Server, data: st.DataObject
) -> None:
    everything = sorted(item.sn for items in server.lists for item in items)
    # A snapshot's number lies anywhere: on a record's, between two, before the first, behind the last.
    places = [0, *everything, *(sn + 1 for sn in everything)]
    opening, closing = sorted((data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))))
    make_possible(server)

    delivered = [item.sn for step in steps(server, opening, closing) for item in step.records]
    assert sorted(delivered) == [sn for sn in everything if opening < sn <= closing]
    assert server.cursors == sorted(set(server.cursors))
    # Bounded: every page but the last two brings new records, as many as it has room for.
    beyond = sum(sn > opening for sn in everything)
    assert len(server.cursors) <= beyond // (1 if server.repeated else LIMIT - server.overlap) + 2
    if not (server.per_list or server.repeated or server.overlap):
        assert server.cursors == needed_cursors(everything, opening, closing)


def make_possible(server: Server) -> None:
    """Leave out what no client could page through: full pages that hold nothing but repeats."""
    if server.per_list:
        server.overlap = min(server.overlap, 1)
    if server.overlap + 2 * server.repeated >= LIMIT:
        server.repeated = 0


def steps(server: Server, opening: int, closing: int) -> list[paging.Step]:
    return list(walk(lambda at: (server.page_at(at), True), limit=LIMIT, cursor=opening + 1, closing_sn=closing))


def needed_cursors(everything: list[int], opening: int, closing: int) -> list[int]:
    """What a client would ask that knew how this server pages: not one request more."""
    cursors, cursor = [], opening + 1
    while opening != closing:
        cursors.append(cursor)
        page = [sn for sn in everything if sn >= cursor][:LIMIT]
        if len(page) < LIMIT or page[-1] >= closing:
            break
        cursor = page[-1] + 1
    return cursors


def single(*sns: int, **options: Any) -> Server:
    return Server([[Item(sn) for sn in sns], []], **options)


def asked(server: Server, opening: int, closing: int) -> tuple[list[int], list[int]]:
    taken = sorted(item.sn for step in steps(server, opening, closing) for item in step.records)
    return server.cursors, taken


def test_between_equal_numbers_nothing_is_asked() -> None:
    assert asked(single(1, 2, 3), 2, 2) == ([], [])


def test_a_page_that_is_not_full_is_the_last() -> None:
    assert asked(single(1, 2, 3, 4), 0, 99) == ([1], [1, 2, 3, 4])


def test_a_full_page_that_ends_at_the_closing_number_is_the_last() -> None:
    assert asked(single(1, 2, 3, 4, 5, 6, 7), 0, 5) == ([1], [1, 2, 3, 4, 5])


def test_a_full_page_that_reaches_past_the_closing_number_is_the_last() -> None:
    assert asked(single(1, 2, 3, 4, 9), 0, 7) == ([1], [1, 2, 3, 4])


def test_a_full_page_that_ends_before_the_closing_number_is_followed_by_another() -> None:
    assert asked(single(1, 2, 3, 4, 5), 0, 6) == ([1, 6], [1, 2, 3, 4, 5])
    assert asked(single(*range(1, 12)), 0, 10) == ([1, 6], list(range(1, 11)))


def test_a_day_in_which_nothing_happened_takes_one_page() -> None:
    assert asked(single(), 10, 20) == ([11], [])
    assert asked(single(21, 22), 10, 20) == ([11], [])


def test_a_list_that_is_full_by_itself_holds_back_the_other_one() -> None:
    orders, changes = [Item(sn) for sn in range(1, 13)], [Item(100), Item(200)]
    server = Server([orders, changes], per_list=True)
    taken = [sorted(item.sn for item in step.records) for step in steps(server, 0, 300)]
    assert server.cursors == [1, 6, 11]
    assert taken == [
        [1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10],
        [11, 12, 100, 200],
    ]


def test_the_smaller_end_of_two_full_lists_counts() -> None:
    page = Page("a", ([Item(sn) for sn in (1, 3, 5, 7, 9)], [Item(sn) for sn in (2, 4, 6, 8, 20)]))
    assert end_of(page, limit=5, cursor=1) == 10


def test_without_a_full_list_the_largest_number_of_all_counts() -> None:
    page = Page("a", ([Item(sn) for sn in (1, 3, 5)], [Item(sn) for sn in (2, 20)]))
    for limit in (5, 6):
        assert end_of(page, limit=limit, cursor=1) == 21


def test_a_page_without_anything_new_answers_for_nothing() -> None:
    assert end_of(Page("a", ([], [])), limit=5, cursor=7) == 7
    assert end_of(Page("a", ([Item(3)], [Item(4)])), limit=5, cursor=7) == 7


def test_records_before_the_cursor_and_behind_the_closing_number_are_not_taken() -> None:
    page = Page("a", ([Item(8), Item(12), Item(10)], [Item(11), Item(13)]))
    step = read_step(page, limit=9, cursor=10, closing_sn=12)
    assert sorted(record.sn for record in step.records) == [10, 11, 12]
    assert (step.end, step.full) == (14, False)


def test_a_full_page_that_holds_nothing_new_is_an_error_and_no_loop() -> None:
    def stuck(_: int) -> tuple[Page, bool]:
        return Page("a", ([Item(sn) for sn in range(1, 6)], [])), True

    told = r"the page from sn 6 is full \(5 records\) but holds nothing from there on, the largest sn is 5"
    with pytest.raises(Contradiction, match=told):
        list(walk(stuck, limit=LIMIT, cursor=1, closing_sn=100))


def test_one_number_with_two_contents_in_a_page_is_an_error() -> None:
    for lists in (([Item(1, "a"), Item(1, "b")], []), ([Item(1, "a")], [Item(1, "b")])):
        page = Page("a", lists)
        with pytest.raises(InvalidResponse, match=r"sn 1 comes twice with different content.*'a'.*'b'"):
            list(walk(lambda _, page=page: (page, True), limit=LIMIT, cursor=1, closing_sn=100))


def test_one_number_with_two_contents_in_two_pages_is_an_error() -> None:
    pages = {
        1: Page("a", ([Item(sn, "old") for sn in range(1, 6)], [])),
        6: Page("a", ([Item(5, "new"), Item(6, "old")], [])),
    }
    with pytest.raises(InvalidResponse, match="sn 5 comes twice with different content"):
        list(walk(lambda at: (pages[at], True), limit=LIMIT, cursor=1, closing_sn=100))


def test_a_repeat_with_the_same_content_is_taken_once() -> None:
    pages = {
        1: Page("a", ([Item(sn) for sn in (1, 2, 2, 3, 4, 5)], [])),
        6: Page("a", ([Item(5), Item(6), Item(6)], [])),
    }
    taken = list(walk(lambda at: (pages[at], True), limit=LIMIT, cursor=1, closing_sn=100))
    assert [sorted(item.sn for item in step.records) for step in taken] == [[1, 2, 3, 4, 5], [6]]


def test_paging_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 7)

    def endless(cursor: int) -> tuple[Page, bool]:
        return Page("a", ([Item(cursor + step) for step in range(LIMIT)], [])), True

    with pytest.raises(InvalidResponse, match="the changes do not end: 7 pages and still going at sn 36"):
        list(walk(endless, limit=LIMIT, cursor=1))


def test_a_page_is_asked_for_only_when_the_one_before_was_taken() -> None:
    server = single(*range(1, 30))
    taken = walk(lambda at: (server.page_at(at), True), limit=LIMIT, cursor=1, closing_sn=99)
    assert server.cursors == []
    next(taken)
    assert server.cursors == [1]
    next(taken)
    assert server.cursors == [1, 6]


@settings(max_examples=200, deadline=None)
@given(servers, st.data())
def test_a_day_asked_for_while_it_goes_on_is_the_day_asked_for_afterwards(server: Server, data: st.DataObject) -> None:
    make_possible(server)
    everything = sorted(item.sn for items in server.lists for item in items)
    closing = data.draw(st.sampled_from([0, *everything]))
    whole = Server(server.lists)
    taken: dict[int, Item] = {}
    cursor = 1
    # Each round shows a longer part of the history; the last one all of it.
    rounds = sorted(data.draw(st.lists(st.sampled_from([0, *everything]), max_size=4)))
    for place, seen in enumerate([*rounds, everything[-1] if everything else 0]):
        server.lists = [[item for item in items if item.sn <= seen] for items in whole.lists]
        for step in walk(lambda at: (server.page_at(at), True), limit=LIMIT, cursor=cursor):
            assert not taken.keys() & {item.sn for item in step.records}, f"twice, in round {place}"
            taken |= {item.sn: item for item in step.records}
            cursor = step.end

    assert sorted(taken) == everything
    server.lists = whole.lists
    assert {sn for sn in taken if sn <= closing} == {
        item.sn for step in steps(server, 0, closing) for item in step.records
    }


def test_a_page_that_was_asked_for_too_early_is_followed_by_another() -> None:
    pages = {1: (Page("a", ([Item(1), Item(2)], [])), False), 3: (Page("a", ([Item(7)], [])), True)}
    taken = list(walk(pages.__getitem__, limit=LIMIT, cursor=1, closing_sn=5))
    assert [[item.sn for item in step.records] for step in taken] == [[1, 2], []]


def test_an_early_page_with_nothing_in_it_is_no_loop() -> None:
    with pytest.raises(
        Contradiction, match="the page from sn 1 holds nothing from there on, and yet it is not the last"
    ):
        list(walk(lambda _: (Page("a", ([], [])), False), limit=LIMIT, cursor=1, closing_sn=5))


@settings(max_examples=100, deadline=None)
@given(histories(), st.data())
def test_a_record_that_the_server_withholds_is_missing_and_never_made_up(
    lists: list[list[Item]], data: st.DataObject
) -> None:
    """Paging cannot see a loss; the chain of balances can. It must not hide it by a repeat or a gap of its own."""
    everything = sorted(item.sn for items in lists for item in items)
    lost = data.draw(st.sets(st.sampled_from(everything or [0])))
    server = Server([[item for item in items if item.sn not in lost] for items in lists])
    found = sorted(item.sn for step in steps(server, 0, 2**50) for item in step.records)
    assert found == [sn for sn in everything if sn not in lost]
