"""The pages of a day as the store has them: finding them, and reading their legs without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import TYPE_CHECKING

from balance_bridge.errors import StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.extract.paging import NO_END, end_of, walk
from balance_bridge.extract.source import Page, Record, Source
from balance_bridge.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_PAGES_PER_TABLE = 64


def page_key(generation: str, cursor: int, attempt: int) -> str:
    """The key of an attempt at the page that begins at a cursor."""
    return f"{generation}/{cursor:020d}-{attempt:04d}{raw.SUFFIX}"


def attempt_of(key: str) -> int:
    """The number at the end of a raw object's name: of the snapshot, or of the attempt at a page."""
    return int(key.removesuffix(raw.SUFFIX)[-4:])


def newest_pages(store: Store, generation: str) -> dict[int, str]:
    """The key of each page of a generation, by cursor; of several attempts at a page the last."""
    # Sorted names: a later attempt at a page follows the earlier one and takes its place.
    return {int(key.rsplit("/", 1)[1].split("-")[0]): key for key in store.list(generation)}


def first_cursor(cursors: Iterator[int], opening_sn: int) -> int:
    """Where a day's pages begin: behind the opening number, or with a page of the day before that reaches there."""
    return max((cursor for cursor in cursors if cursor <= opening_sn + 1), default=opening_sn + 1)


def read_legs(source: Source, store: Store, generation: str, *, opening_sn: int, closing_sn: int = NO_END) -> pa.Table:
    """The legs of a day, or of what there is of it yet, from its stored pages.

    Args:
        source: Interprets the answers.
        store: Where they lie.
        generation: The folder of the pages.
        opening_sn: The opening snapshot's sequence number.
        closing_sn: The closing snapshot's.

    Returns:
        A table of the schema ``transform.schema.LEGS``, its text dictionary-encoded or not: every record in
        (opening sn, closing sn] once.

    Raises:
        StoreDamaged: If a page is missing or damaged.
    """
    import pyarrow as pa

    pieces = legs_in_pieces(source, store, generation, opening_sn=opening_sn, closing_sn=closing_sn)
    # In one piece: whoever works on whole columns would otherwise copy each of them while this one is still there.
    return pa.concat_tables(pieces, promote_options="default").unify_dictionaries().combine_chunks()


def legs_in_pieces(
    source: Source,
    store: Store,
    generation: str,
    *,
    opening_sn: int,
    closing_sn: int = NO_END,
    pages_per_piece: int = _PAGES_PER_TABLE,
) -> Iterator[pa.Table]:
    """The same in pieces that follow each other in the order of sequence numbers, at least one.

    Args:
        source: Interprets the answers.
        store: Where they lie.
        generation: The folder of the pages.
        opening_sn: The opening snapshot's sequence number.
        closing_sn: The closing snapshot's.
        pages_per_piece: How many pages lie in memory at once, or twice that many.

    Raises:
        StoreDamaged: If a page is missing or damaged.
    """
    stored = newest_pages(store, generation)
    following = None if opening_sn >= closing_sn else first_cursor(iter(stored), opening_sn)
    if following is None:
        yield source.legs([])
        return
    cursors = [cursor for cursor in sorted(stored) if following <= cursor <= closing_sn]
    batches = [cursors[start : start + pages_per_piece] for start in range(0, len(cursors), pages_per_piece)]

    def bodies(batch: list[int]) -> list[bytes]:
        return [raw.read(store, stored[cursor]).body for cursor in batch]

    done = False
    # The next pages are unpacked by another thread while these are read.
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(bodies, batches[0]) if batches and batches[0][0] == following else None
        for batch, after in zip_longest(batches, batches[1:]):
            if coming is None:
                break
            ready = coming.result()
            coming = reader.submit(bodies, after) if after else None
            found = source.legs_of_pages(ready, batch, then=after[0] if after else None, closing_sn=closing_sn)
            if found is None:
                following = batch[0]
                break
            yield _behind(found, opening_sn) if batch[0] <= opening_sn else found
            done = coming is None
    if not done:
        yield from _read_one_by_one(
            source, store, generation, stored, following, opening_sn, closing_sn, pages_per_piece
        )


def _read_one_by_one(
    source: Source,
    store: Store,
    generation: str,
    stored: dict[int, str],
    cursor: int,
    opening_sn: int,
    closing_sn: int,
    pages_per_piece: int,
) -> Iterator[pa.Table]:
    def page_at(cursor: int) -> tuple[Page, bool]:
        if cursor not in stored:
            raise StoreDamaged(f"{store.describe(generation)} lacks the page from sn {cursor}")
        page = source.read_page(raw.read(store, stored[cursor]).body)
        end = end_of(page, limit=source.page_limit, cursor=cursor)
        # When these were asked for, it was made sure that they reach the end; here they are followed as far as they go.
        return page, end == cursor or end not in stored

    waiting: list[Record] = []
    for count, step in enumerate(walk(page_at, limit=source.page_limit, cursor=cursor, closing_sn=closing_sn), start=1):
        waiting.extend(record for record in step.records if record.sn > opening_sn)
        # A table per page would be all overhead, one for all pages would hold every record as an object.
        if count % pages_per_piece == 0:
            yield source.legs(waiting)
            waiting = []
    yield source.legs(waiting)


def _behind(legs: pa.Table, opening_sn: int) -> pa.Table:
    import pyarrow.compute as pc

    return legs.filter(pc.greater(legs["sn"], opening_sn))
