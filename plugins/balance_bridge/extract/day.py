"""One day of one account out of the exchange and into the store, asking only for what the store does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from balance_bridge.errors import (
    BadAnswer,
    Contradiction,
    NotYetAvailable,
    RequestRefused,
    RetentionExceeded,
    StoreDamaged,
)
from balance_bridge.extract import raw
from balance_bridge.extract.paging import walk
from balance_bridge.extract.source import Page, Record, SnapshotAnswer, Source
from balance_bridge.store import Store
from balance_bridge.transport import Answer

if TYPE_CHECKING:
    import pyarrow as pa

_PAGES_PER_TABLE = 64


@dataclass(frozen=True)
class StoredHistory:
    """The changes of a day as the store has them.

    Attributes:
        generation: The folder of the pages.
        pages: Number of pages.
        records: Number of records in (opening sn, closing sn].
        asked: Number of pages that had to be asked for now.
    """

    generation: str
    pages: int
    records: int
    asked: int


class DayExtraction:
    """Snapshots and changes of one account, from the store or else from the exchange.

    Args:
        source: The account at the exchange.
        store: Where raw answers lie.
        account: The account's name in the accounts file.
        retention_days: How far back the exchange answers.
        asked_by: Who asks; written with every answer.
        again: None to be content with what the store has. Otherwise a reason to ask anew: whatever was not asked by
            this ``asked_by`` for this very reason is asked for once more, beside what is there.
        log: Told of progress.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        account: str,
        *,
        retention_days: int,
        asked_by: str,
        again: str | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._store = store
        self._account = account
        self._retention_days = retention_days
        self._asked_by = f"{asked_by} ({again})" if again else asked_by
        self._anew = again is not None
        self._log = log

    def snapshot(self, day: date) -> tuple[str, SnapshotAnswer]:
        """The balances at the start of a UTC day.

        Returns:
            The raw object's key and what it says.

        Raises:
            NotYetAvailable: The day is today and the exchange has no snapshot yet.
            RetentionExceeded: Neither the store nor the exchange has it.
            RequestRefused: The exchange has none, although the day lies within its window.
            BadAnswer: The answer is not what the exchange documents. It is kept in the store all the same.
        """
        series = f"raw/{self._account}/{day}/snapshot"
        newest = self._store.newest(series, raw.SUFFIX)
        if newest is not None:
            try:
                stored = raw.read(self._store, newest)
                if self._contents(stored):
                    return newest, self._source.read_snapshot(stored.body, day)
            except (BadAnswer, StoreDamaged) as error:
                self._log(f"{newest} cannot be used ({error}): asking again")
        what = f"the snapshot of {day}"
        self._log(f"asking for {what}")
        answer = self._ask(lambda: self._source.ask_snapshot(day), day, what)
        number = 1 if newest is None else _number(newest) + 1
        key = f"{series}/{number:04d}{raw.SUFFIX}"
        self._store.put(key, raw.pack(answer, asked_by=self._asked_by))
        # If another copy of this task was faster, its snapshot is the one that counts.
        return key, self._source.read_snapshot(raw.read(self._store, key).body, day)

    def history(self, day: date, opening: SnapshotAnswer, closing: SnapshotAnswer) -> StoredHistory:
        """The changes of a day: every record in (opening sn, closing sn].

        Raises:
            RetentionExceeded: Neither the store nor the exchange has all of it.
            BadAnswer: An answer is not what the exchange documents. It is kept in the store all the same.
        """
        _check_pair(day, opening, closing)
        generation = self._generation(day)
        stored = _newest_pages(self._store, generation)
        pages = records = asked = 0
        account_ref = ""

        def page_at(cursor: int) -> Page:
            nonlocal pages, asked, account_ref
            page = self._stored_page(stored.get(cursor))
            if page is None:
                page = self._asked_page(generation, stored.get(cursor), cursor, day)
                asked += 1
                self._log(f"changes of {day}: page {pages + 1} from sn {cursor} holds {len(page)} records")
            if account_ref not in ("", page.account_ref):
                raise Contradiction(f"the page from sn {cursor} is of account {page.account_ref}, not {account_ref}")
            pages, account_ref = pages + 1, page.account_ref
            return page

        for taken in walk(
            page_at, limit=self._source.page_limit, opening_sn=opening.snapshot.sn, closing_sn=closing.snapshot.sn
        ):
            records += len(taken)
        return StoredHistory(generation, pages, records, asked)

    def begun(self, day: date) -> bool:
        """Whether this very asking has the snapshot that opens the day: the first thing that it asks for."""
        newest = self._store.newest(f"raw/{self._account}/{day}/snapshot", raw.SUFFIX)
        return newest is not None and self._is_ours([newest])

    def _contents(self, stored: raw.RawAnswer) -> bool:
        return not self._anew or stored.asked_by == self._asked_by

    def _generations(self, day: date) -> list[str]:
        prefix = f"raw/{self._account}/{day}/history"
        return sorted({key.rsplit("/", 1)[0] for key in self._store.list(prefix)})

    def _generation(self, day: date) -> str:
        existing = self._generations(day)
        if not existing:
            return f"raw/{self._account}/{day}/history/0001"
        if not self._anew or self._is_ours(self._store.list(existing[-1])):
            return existing[-1]
        prefix, number = existing[-1].rsplit("/", 1)
        return f"{prefix}/{int(number) + 1:04d}"

    def _is_ours(self, keys: Sequence[str]) -> bool:
        for key in keys:
            try:
                return self._contents(raw.read(self._store, key))
            except StoreDamaged as error:
                self._log(f"{key} cannot be read ({error}): looking at the next one")
        return False

    def _stored_page(self, key: str | None) -> Page | None:
        if key is None:
            return None
        try:
            return self._usable_page(raw.read(self._store, key).body)
        except (BadAnswer, StoreDamaged) as error:
            self._log(f"{key} cannot be used ({error}): asking again")
            return None

    def _asked_page(self, generation: str, unusable: str | None, cursor: int, day: date) -> Page:
        what = f"the changes of {day} from sn {cursor} on"
        answer = self._ask(lambda: self._source.ask_changes(cursor), day, what)
        number = 1 if unusable is None else _number(unusable) + 1
        key = f"{generation}/{cursor:020d}-{number:04d}{raw.SUFFIX}"
        self._store.put(key, raw.pack(answer, asked_by=self._asked_by))
        # If another copy of this task was faster, its page is the one that counts.
        return self._usable_page(raw.read(self._store, key).body)

    def _usable_page(self, body: bytes) -> Page:
        page = self._source.read_page(body)
        # Amounts and assets are only looked at as columns: a page is not usable before they are.
        self._source.legs(list(chain(*page.lists)))
        return page

    def _ask(self, ask: Callable[[], Answer], day: date, what: str) -> Answer:
        oldest = self._source.today() - timedelta(days=self._retention_days)
        if day < oldest:
            raise RetentionExceeded(
                f"{what}: the exchange answers for the last {self._retention_days} days only and the store does not "
                f"have it; the oldest day to be had is {oldest}"
            )
        try:
            return ask()
        except NotYetAvailable as error:
            if day >= self._source.today():
                raise
            if day > oldest + timedelta(days=1):
                raise RequestRefused(
                    f"{what}: the exchange says that it has none ({error}), although it lies within the "
                    f"{self._retention_days} days that it answers for: ask the exchange, then clear this task"
                ) from error
            # The window closes while we ask.
            raise RetentionExceeded(
                f"{what}: the exchange does not have it any more ({error}) and neither does the store; "
                f"the oldest day to be had is {oldest + timedelta(days=1)} or later"
            ) from error


def read_legs(source: Source, store: Store, generation: str, *, opening_sn: int, closing_sn: int) -> pa.Table:
    """The legs of a day from its stored pages, without asking the exchange.

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

    stored = _newest_pages(store, generation)
    tables = _read_together(source, store, stored, opening_sn, closing_sn)
    if tables is None:
        tables = list(_read_one_by_one(source, store, generation, stored, opening_sn, closing_sn))
    # In one piece: whoever works on whole columns would otherwise copy each of them while this one is still there.
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()


def _read_together(
    source: Source, store: Store, stored: dict[int, str], opening_sn: int, closing_sn: int
) -> list[pa.Table] | None:
    cursors = sorted(stored)
    if opening_sn == closing_sn or cursors[:1] != [opening_sn + 1]:
        return None
    batches = [cursors[start : start + _PAGES_PER_TABLE] for start in range(0, len(cursors), _PAGES_PER_TABLE)]

    def bodies(batch: list[int]) -> list[bytes]:
        return [raw.read(store, stored[cursor]).body for cursor in batch]

    tables: list[pa.Table] = []
    following: int | None = cursors[0]
    # The next pages are unpacked by another thread while these are read.
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(bodies, batches[0])
        for batch, after in zip_longest(batches, batches[1:]):
            ready = coming.result()
            if after:
                coming = reader.submit(bodies, after)
            found = source.legs_of_pages(ready, batch, closing_sn=closing_sn) if batch[0] == following else None
            if found is None:
                return None
            tables.append(found[0])
            following = found[1]
            if following is None:
                return tables
    return None


def _read_one_by_one(
    source: Source, store: Store, generation: str, stored: dict[int, str], opening_sn: int, closing_sn: int
) -> Iterator[pa.Table]:
    def page_at(cursor: int) -> Page:
        if cursor not in stored:
            raise StoreDamaged(f"{store.describe(generation)} lacks the page from sn {cursor}")
        return source.read_page(raw.read(store, stored[cursor]).body)

    waiting: list[Record] = []
    steps = walk(page_at, limit=source.page_limit, opening_sn=opening_sn, closing_sn=closing_sn)
    for count, taken in enumerate(steps, start=1):
        waiting.extend(taken)
        # A table per page would be all overhead, one for all pages would hold every record as an object.
        if count % _PAGES_PER_TABLE == 0:
            yield source.legs(waiting)
            waiting = []
    yield source.legs(waiting)


def _check_pair(day: date, opening: SnapshotAnswer, closing: SnapshotAnswer) -> None:
    if opening.account_ref != closing.account_ref:
        raise Contradiction(
            f"the snapshots of {day} and of the day after are of different accounts: {opening.account_ref} and "
            f"{closing.account_ref}; was the connection pointed at another account?"
        )
    if closing.snapshot.sn < opening.snapshot.sn:
        raise Contradiction(
            f"the snapshot of {day} has sn {opening.snapshot.sn}, the one of the day after "
            f"{closing.snapshot.sn}, which must not be smaller"
        )


def _newest_pages(store: Store, generation: str) -> dict[int, str]:
    # Sorted names: a later attempt at a page follows the earlier one and takes its place.
    return {int(key.rsplit("/", 1)[1].split("-")[0]): key for key in store.list(generation)}


def _number(key: str) -> int:
    """The number at the end of a raw object's name: of the snapshot, or of the attempt at a page."""
    return int(key.removesuffix(raw.SUFFIX)[-4:])
