"""Paging by sequence number, right for whatever the exchange leaves open.

Not documented: whether ``limit`` counts each list or both together, and the order inside a page. So nothing is taken
from a record's place in a page, and a page is only believed up to the first number behind which one of its lists may
have been cut. A page asked for from ``cursor`` answers for the records in ``[cursor, next cursor)``, and every record
is taken from exactly one page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from balance_bridge.errors import Contradiction
from balance_bridge.extract.source import Page, Record

MAX_PAGES = 100_000


@dataclass(frozen=True)
class Step:
    """What one page answers for.

    Attributes:
        records: The records from the cursor on, up to the next cursor and to the closing sequence number.
        next_cursor: Where the next page begins, always past the cursor; None if this was the last one.
    """

    records: Sequence[Record]
    next_cursor: int | None


def next_cursor(page: Page, *, limit: int, cursor: int, closing_sn: int) -> int | None:
    """Where to ask next, or None if nothing up to the closing number can be missing.

    Args:
        page: The answer to a request from ``cursor``.
        limit: Records that a full page holds at least; a page with fewer is the last.
        cursor: The sequence number that was asked for.
        closing_sn: The sequence number of the closing snapshot.

    Raises:
        Contradiction: If the page is full and yet leads nowhere.
    """
    sizes = [len(records) for records in page.lists]
    tops = [max((record.sn for record in records), default=-1) for records in page.lists]
    following = cursor_after(sizes, tops, limit=limit, closing_sn=closing_sn)
    if following is not None and following <= cursor:
        raise Contradiction(
            f"the page from sn {cursor} is full ({len(page)} records) but leads to sn {following}: "
            "the exchange does not continue from the number that was asked for"
        )
    return following


def cursor_after(sizes: Sequence[int], tops: Sequence[int], *, limit: int, closing_sn: int) -> int | None:
    """Where a page leads, from no more than the size and the largest sequence number of each of its lists.

    Args:
        sizes: Number of records of each list.
        tops: Largest sequence number of each list; anything smaller than all for an empty one.
        limit: Records that a full page holds at least.
        closing_sn: The sequence number of the closing snapshot.

    Returns:
        The next cursor, or None if nothing up to the closing number can be missing.
    """
    if sum(sizes) < limit:
        return None
    # A list that is full by itself may have been cut behind its largest number while the others reach further.
    # Where none is, the limit counted all of them, and what was cut lies behind the largest number of all.
    full = [top for size, top in zip(sizes, tops, strict=True) if size >= limit]
    top = min(full) if full else max(tops)
    return top + 1 if top < closing_sn else None


def read_step(page: Page, *, limit: int, cursor: int, closing_sn: int, before: Iterable[Record] = ()) -> Step:
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
    following = next_cursor(page, limit=limit, cursor=cursor, closing_sn=closing_sn)
    end = closing_sn if following is None else min(closing_sn, following - 1)
    earlier = {record.sn: record for record in before}
    current: dict[int, Record] = {}
    for record in chain(*page.lists):
        for twin in (current.setdefault(record.sn, record), earlier.get(record.sn)):
            if twin is not None and twin is not record and twin != record:
                raise Contradiction(f"sn {record.sn} comes twice with different content: {twin} and {record}")
    return Step([record for sn, record in current.items() if cursor <= sn <= end], following)


def walk(page_at: Callable[[int], Page], *, limit: int, opening_sn: int, closing_sn: int) -> Iterator[Sequence[Record]]:
    """Every record in (opening_sn, closing_sn] once, page by page.

    Args:
        page_at: Gives the page that begins at a sequence number. It is not called where the two numbers are equal.
        limit: Records that a full page holds at least.
        opening_sn: The opening snapshot's sequence number.
        closing_sn: The closing snapshot's.

    Raises:
        Contradiction: As :func:`read_step`, or after 100,000 pages.
    """
    if opening_sn == closing_sn:
        return
    cursor, before = opening_sn + 1, Page("", ())
    for _ in range(MAX_PAGES):
        page = page_at(cursor)
        step = read_step(page, limit=limit, cursor=cursor, closing_sn=closing_sn, before=chain(*before.lists))
        yield step.records
        if step.next_cursor is None:
            return
        cursor, before = step.next_cursor, page
    raise Contradiction(
        f"the changes from sn {opening_sn + 1} on do not end: {MAX_PAGES} pages and still going at {cursor}"
    )
