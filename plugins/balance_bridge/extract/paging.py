"""Paging by sequence number, right for whatever the other side leaves open.

Not documented: whether ``limit`` counts each list or both together, the order inside a page, and whether the exchange
caps its pages below the limit. So nothing is taken from a record's place in a page, and a page is only believed up to
the first number behind which one of its lists may have been cut. A page fetched from ``cursor`` is good for the records
in ``[cursor, end)``, the next page is fetched from ``end``, and every record is taken from exactly one page. Where the
number at the cut may belong to several records, the next page begins with that number once more.

A page that is not full holds everything that there was when it was fetched. That ends the paging only if everything
that is wanted was there by then; where it was fetched earlier (while the day was still going on, or for the day
before), the paging goes on behind what it holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from balance_bridge.errors import Contradiction
from balance_bridge.extract.source import Page, Record

MAX_PAGES = 100_000
# Above every sequence number: the far end of a day that is still going on.
NO_END = (1 << 63) - 1


@dataclass(frozen=True)
class Step:
    """What one page is good for: its records in [cursor, end)."""

    page: Page
    cursor: int
    end: int


@dataclass(frozen=True)
class Walk:
    """The pages from one sequence number to another.

    Attributes:
        limit: Records that a full page holds at least.
        closing_sn: The sequence number of the closing snapshot.
        known: Cursors of pages that were fetched before, sorted. A page that reaches to one of them leads there.
        to_empty: Believe no page to be the last before one brings nothing new, in case the exchange caps its pages
            below the limit.
    """

    limit: int
    closing_sn: int = NO_END
    known: Sequence[int] = ()
    to_empty: bool = False

    def steps(self, page_at: Callable[[int], tuple[Page, bool]], cursor: int) -> Iterator[Step]:
        """Every record from a cursor to the closing number once, page by page.

        Args:
            page_at: Gives the page that begins at a sequence number, and whether everything up to the closing number
                was there when it was fetched. It is not called where the cursor lies behind the closing number.
            cursor: Where to begin.

        Raises:
            Contradiction: If a sequence number comes twice with different content; if a page that should be followed
                leads nowhere; or after 100,000 pages.
        """
        before: dict[int, list[Record]] = {}
        for _ in range(MAX_PAGES):
            if cursor > self.closing_sn:
                return
            page, all_there = page_at(cursor)
            found = _by_sn(page)
            had = cursor if cursor in before else cursor - 1
            # A cap may count each list as well.
            top = top_of(page, 1 if self.to_empty else self.limit, after=had)
            full, nothing_new = len(page) >= self.limit, top <= had
            _check_repeats(before, found, cursor)
            if full and nothing_new:
                raise Contradiction(
                    f"the page from sn {cursor} is full ({len(page)} records) but holds nothing from there on, the "
                    f"largest sn is {top}",
                    why="the exchange does not continue from the number that was asked for",
                )
            following = self._known_after(cursor, top)
            if following is None and self._is_last(top, full=full, all_there=all_there, nothing_new=nothing_new):
                yield Step(page, cursor, max(cursor, top + 1))
                return
            if following is None:
                cut = full or self.to_empty
                following = top if cut and top > cursor and found[top][0].shares_sn else max(cursor, top + 1)
            yield Step(page, cursor, following)
            if following == cursor:
                raise Contradiction(
                    f"the page from sn {cursor} holds nothing from there on, and yet it is not the last"
                )
            cursor, before = following, {sn: records for sn, records in found.items() if sn <= following}
        raise Contradiction(f"the changes do not end: {MAX_PAGES} pages and still going at sn {cursor}")

    def _known_after(self, cursor: int, top: int) -> int | None:
        place = bisect_right(self.known, cursor)
        return self.known[place] if place < len(self.known) and self.known[place] <= top + 1 else None

    def _is_last(self, top: int, *, full: bool, all_there: bool, nothing_new: bool) -> bool:
        if self.to_empty:
            return nothing_new
        # What may be missing of the closing number itself shows when the day does not add up.
        return (all_there and not full) or top >= self.closing_sn


def top_of(page: Page, limit: int, *, after: int = -1) -> int:
    """The largest sequence number up to which nothing was cut from a page.

    Args:
        page: The page.
        limit: Records at which a list may have been cut.
        after: Only lists that reach beyond this number count.

    Returns:
        The number; the largest of all where no list was cut, -1 for an empty page.
    """
    # A list that is full by itself may have been cut behind its largest number while the others reach further.
    # Where none is, the limit counted all of them, and what was cut lies behind the largest number of all.
    tops = [(len(records), max(record.sn for record in records)) for records in page.lists if records]
    cut = [top for size, top in tops if size >= limit and top > after]
    return min(cut, default=max((top for _, top in tops), default=-1))


def _by_sn(page: Page) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in chain(*page.lists):
        found.setdefault(record.sn, []).append(record)
    return found


def _check_repeats(before: dict[int, list[Record]], found: dict[int, list[Record]], cursor: int) -> None:
    """What comes again must have the content that it had; an event that the cut divided is completed."""
    for sn in before.keys() & found.keys():
        for record in before[sn] if sn == cursor else ():
            if record not in found[sn]:
                raise Contradiction(f"sn {sn} comes twice with different content: {record} and {found[sn][0]}")
        for record in found[sn]:
            if record not in before[sn] and not (sn == cursor and record.shares_sn):
                raise Contradiction(f"sn {sn} comes twice with different content: {before[sn][0]} and {record}")
