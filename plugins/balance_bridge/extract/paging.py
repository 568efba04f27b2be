"""Paging by sequence number, right for whatever the other side leaves open.

Not documented: whether ``limit`` counts each list or both together, and the order inside a page. So nothing is taken
from a record's place in a page, and a page is only believed up to the first number behind which one of its lists may
have been cut. A page asked for from ``cursor`` answers for the records in ``[cursor, end)``, the next page is asked for
from ``end``, and every record is taken from exactly one page.

A page that is not full holds everything that there was when it was asked for. That ends the paging only if everything
that is wanted was there by then; where it was asked for earlier (while the day was still going on, or for the day
before), the paging goes on behind what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from balance_bridge.errors import Contradiction
from balance_bridge.extract.source import Page, Record

MAX_PAGES = 100_000
# Above every sequence number: the far end of a day that is still going on.
NO_END = (1 << 63) - 1


@dataclass(frozen=True)
class Step:
    """What one page answers for.

    Attributes:
        records: The records from the cursor on, up to the end and to the closing sequence number.
        end: The first sequence number that the page does not answer for; the next page is asked for from there.
        full: Whether the page is full: only then can records have been cut from it.
    """

    records: Sequence[Record]
    end: int
    full: bool


def page_end(sizes: Sequence[int], tops: Sequence[int], *, limit: int, cursor: int) -> int:
    """How far a page answers, from no more than the size and the largest sequence number of each of its lists.

    Args:
        sizes: Number of records of each list.
        tops: Largest sequence number of each list; anything smaller than all for an empty one.
        limit: Records that a full page holds at least.
        cursor: The sequence number that was asked for.

    Returns:
        The first sequence number that the page does not answer for, at least the cursor.
    """
    # A list that is full by itself may have been cut behind its largest number while the others reach further.
    # Where none is, the limit counted all of them, and what was cut lies behind the largest number of all.
    full = [top for size, top in zip(sizes, tops, strict=True) if size >= limit]
    top = min(full) if full else max(tops, default=-1)
    return max(cursor, top + 1)


def end_of(page: Page, *, limit: int, cursor: int) -> int:
    """How far a page answers; see :func:`page_end`.

    Raises:
        Contradiction: If the page is full and yet leads nowhere.
    """
    sizes = [len(records) for records in page.lists]
    tops = [max((record.sn for record in records), default=-1) for records in page.lists]
    end = page_end(sizes, tops, limit=limit, cursor=cursor)
    if len(page) >= limit and end <= cursor:
        raise Contradiction(
            f"the page from sn {cursor} is full ({len(page)} records) but holds nothing from there on, the largest "
            f"sn is {max(tops)}: the exchange does not continue from the number that was asked for"
        )
    return end


def read_step(page: Page, *, limit: int, cursor: int, closing_sn: int = NO_END, before: Iterable[Record] = ()) -> Step:
    """Take from a page what it answers for.

    Args:
        page: The answer to a request from ``cursor``.
        limit: Records that a full page holds at least.
        cursor: The sequence number that was asked for.
        closing_sn: The sequence number of the closing snapshot; records behind it belong to the next day.
        before: All records of the page before; repeats must agree with them.

    Raises:
        Contradiction: If a sequence number comes twice with different content, or the page leads nowhere.
    """
    end = end_of(page, limit=limit, cursor=cursor)
    earlier = {record.sn: record for record in before}
    current: dict[int, Record] = {}
    for record in chain(*page.lists):
        for twin in (current.setdefault(record.sn, record), earlier.get(record.sn)):
            if twin is not None and twin is not record and twin != record:
                raise Contradiction(f"sn {record.sn} comes twice with different content: {twin} and {record}")
    records = [record for sn, record in current.items() if cursor <= sn < end and sn <= closing_sn]
    return Step(records, end, len(page) >= limit)


def walk(
    page_at: Callable[[int], tuple[Page, bool]], *, limit: int, cursor: int, closing_sn: int = NO_END
) -> Iterator[Step]:
    """Every record from a cursor to the closing number once, page by page.

    Args:
        page_at: Gives the page that begins at a sequence number, and whether everything up to the closing number was
            there when it was asked for. It is not called where the cursor lies behind the closing number.
        limit: Records that a full page holds at least.
        cursor: Where to begin.
        closing_sn: The closing snapshot's sequence number.

    Raises:
        Contradiction: As :func:`read_step`; if a page that should be followed leads nowhere; or after 100,000 pages.
    """
    before = Page("", ())
    for _ in range(MAX_PAGES):
        if cursor > closing_sn:
            return
        page, all_there = page_at(cursor)
        step = read_step(page, limit=limit, cursor=cursor, closing_sn=closing_sn, before=chain(*before.lists))
        yield step
        if all_there and not step.full:
            return
        if step.end == cursor:
            raise Contradiction(f"the page from sn {cursor} holds nothing from there on, and yet it is not the last")
        cursor, before = step.end, page
    raise Contradiction(f"the changes do not end: {MAX_PAGES} pages and still going at sn {cursor}")
