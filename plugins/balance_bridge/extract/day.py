"""One day of one account out of the exchange and into the store, fetching only what the store does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from balance_bridge.errors import (
    InvalidResponse,
    NotYetAvailable,
    StoreDamaged,
)
from balance_bridge.extract import raw
from balance_bridge.extract.fetching import Fetcher
from balance_bridge.extract.paging import NO_END, Step, Walk, top_of
from balance_bridge.extract.source import Page, Source
from balance_bridge.store import Store
from balance_bridge.transform.schema import LEGS
from balance_bridge.transform.snapshot import Snapshot

# So long after an instant everything before it has its sequence number, whatever the clocks of the machines say.
_SETTLED_S = 600.0


@dataclass(frozen=True)
class StoredSnapshot:
    """A day's opening balances as the store has them.

    Attributes:
        key: The raw object.
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        snapshot: Sequence number, instant and balances.
        known_at: Seconds since the epoch (UTC) at which the response was whole.
        asked_by: The run that fetched it, and its reason.
    """

    key: str
    account_ref: str
    snapshot: Snapshot
    known_at: float
    asked_by: str


@dataclass(frozen=True)
class StoredHistory:
    """The changes of a day as the store has them.

    Attributes:
        generation: The folder of the pages.
        pages: Number of pages.
        fetched: Number of pages that had to be fetched now.
        legs: Every record in (opening sn, closing sn] once, as a table of the schema ``transform.schema.LEGS``.
        known_at: Seconds since the epoch (UTC) by the exchange's clock up to which it knew what it sent now; None if
            nothing was fetched.
        late: Sequence numbers beyond the closing one whose records have a time inside the day.
    """

    generation: str
    pages: int
    fetched: int
    legs: pa.Table
    known_at: float | None
    late: tuple[int, ...] = ()


def read_snapshot(source: Source, store: Store, key: str, day: date) -> StoredSnapshot:
    """A snapshot of the store.

    Raises:
        StoreDamaged: If it is missing or damaged.
        InvalidResponse: If it is not what the exchange documents.
    """
    stored = raw.read(store, key)
    found = source.read_snapshot(stored.body, day)
    return StoredSnapshot(key, found.account_ref, found.snapshot, stored.ended_at, stored.asked_by)


class DayExtraction(Fetcher):
    """Snapshots and changes of one account, from the store or else from the exchange.

    Args:
        source: The account at the exchange.
        store: Where raw responses lie.
        account: The account's name in the accounts file.
        asked_by: The run; written with every response.
        again: None to be content with what the store has. Otherwise a reason to fetch again: whatever was not fetched
            by this ``asked_by`` for this very reason is fetched once more, beside what is there.
        log: Called with progress.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        account: str,
        *,
        asked_by: str,
        again: str | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(source, store, account, f"{asked_by} ({again})" if again else asked_by, log)
        self.again = again is not None

    def snapshot(self, day: date) -> StoredSnapshot:
        """The balances at the start of a UTC day: the newest usable one of the store, else the exchange's.

        Raises:
            NotYetAvailable: The day has only just begun, or the exchange has no snapshot yet.
            RetentionExceeded: Neither the store nor the exchange has it.
            RequestRefused: The exchange has none, although the day lies within its window.
            InvalidResponse: The response is not what the exchange documents. It is kept in the store all the same.
        """
        series = f"raw/{self.account}/{day}/snapshot"
        # Before anything is looked at: of two copies of this task that fetch at once, one must find the other's.
        newest = self.store.newest(series, raw.SUFFIX)
        key = f"{series}/{raw.attempt_of(newest) + 1 if newest else 1:04d}{raw.SUFFIX}"
        kept, trouble = self.stored_snapshot(day)
        if kept is not None:
            return kept
        self._check_settled(day)
        what = f"the snapshot of {day}"
        self.log(f"fetching {what}")
        response = self.fetch(lambda: self.source.fetch_snapshot(day), "snapshot", day, what, trouble)
        # By the exchange's clock, which a new client knows only now.
        self._check_settled(day)
        self.keep(key, response, "snapshot", lambda: self.source.read_snapshot(response.body, day).account_ref)
        # If another copy of this task was faster, its snapshot is the one that counts.
        found = read_snapshot(self.source, self.store, key, day)
        self.check_same_account("snapshot", found.account_ref)
        return found

    def stored_snapshot(self, day: date) -> tuple[StoredSnapshot | None, str]:
        """The newest usable snapshot of the store, if there is one, and what is wrong with a newer one."""
        trouble = ""
        for key in reversed(self.store.series(f"raw/{self.account}/{day}/snapshot", raw.SUFFIX)):
            try:
                found = read_snapshot(self.source, self.store, key, day)
                if self.again and found.asked_by != self.asked_by:
                    break
                self.check_same_account("snapshot", found.account_ref)
            except (InvalidResponse, StoreDamaged) as error:
                trouble = trouble or self.unusable(key, error)
            else:
                return found, trouble
        return None, trouble

    def history(
        self, day: date, opening: StoredSnapshot, closing: StoredSnapshot | None, *, to_empty: bool = False
    ) -> StoredHistory:
        """The changes of a day: every record in (opening sn, closing sn].

        Args:
            day: The UTC day.
            opening: The snapshot at its start.
            closing: The one at its end; None for a day that is still going on: then everything that there is yet.
            to_empty: Believe no page to be the last before one brings nothing new.

        Raises:
            NotYetAvailable: The exchange does not have all of it yet.
            RetentionExceeded: Neither the store nor the exchange has all of it.
            InvalidResponse: A response is not what the exchange documents. It is kept in the store all the same.
            BudgetExhausted: As the source's budget decides; what was fetched so far is in the store.
        """
        opening_sn, closing_sn = opening.snapshot.sn, NO_END if closing is None else closing.snapshot.sn
        pages = _DayPages(self, day, self._generation(day), closing)
        if not pages.keys and not self.again:
            # On a quiet day as well: what reaches over it holds the first records of a later one.
            pages.take_over(opening_sn)
        tables: list[pa.Table] = []
        late: set[int] = set()
        if opening_sn < closing_sn:
            first = pages.first_cursor(opening_sn)
            # Each page was fetched from where the one before ended, so the last one says where to go on. Only then are
            # those before it read: a task that gives up its worker in between does not read them each time. (Whether
            # the last one brought anything new shows beside the one before it.)
            last = max([first, *sorted(pages.keys)[-2 if to_empty else -1 :][:1]])
            for begin, end in ((last, closing_sn), (first, min(closing_sn, last - 1))):
                walk = Walk(self.source.page_limit, end, sorted(pages.keys), to_empty)
                for step in walk.steps(pages.page_at, begin):
                    tables.append(_legs(step, opening_sn, closing_sn))
                    late.update(_late(step.page, closing))
        return StoredHistory(
            pages.generation,
            len(pages.keys),
            len(pages.fetched_at),
            # In one piece: whoever works on whole columns would otherwise copy each of them beside this one.
            pa.concat_tables([LEGS.empty_table(), *tables]).combine_chunks(),
            max(pages.fetched_at, default=None),
            tuple(sorted(late)),
        )

    def begun(self, day: date) -> bool:
        """Whether this very asking has the snapshot that opens the day: the first thing that it fetches."""
        newest = self.store.newest(f"raw/{self.account}/{day}/snapshot", raw.SUFFIX)
        return newest is not None and self._is_ours([newest])

    def _check_settled(self, day: date) -> None:
        wait_s = datetime.combine(day, time(), UTC).timestamp() + self.source.settle.total_seconds() - self.source.now()
        if wait_s > 0:
            raise NotYetAvailable(
                f"the snapshot of {day} is not fetched before {self.source.settle} after midnight (UTC)", wait_s=wait_s
            )

    def _generation(self, day: date) -> str:
        prefix = f"raw/{self.account}/{day}/history"
        existing = sorted({key.rsplit("/", 1)[0] for key in self.store.list(prefix)})
        if not existing:
            return f"{prefix}/0001"
        if not self.again:
            # A newer one that was begun and never finished must not hide one that is whole.
            whole = self.store.newest(raw.manifests(self.account, day), ".json")
            return str(self.store.read_json(whole)["history"]) if whole else existing[-1]
        if self._is_ours(self.store.list(existing[-1])):
            return existing[-1]
        return f"{prefix}/{int(existing[-1].rsplit('/', 1)[1]) + 1:04d}"

    def _is_ours(self, keys: list[str]) -> bool:
        for key in keys:
            try:
                return raw.read(self.store, key).asked_by == self.asked_by
            except StoreDamaged as error:
                self.log(f"{key} cannot be read ({error}): looking at the next one")
        return False


@dataclass
class _DayPages:
    """The pages of one generation of a day, from the store or else from the exchange.

    Attributes:
        keys: The stored page of each cursor.
        fetched_at: For each page fetched now, the instant by the exchange's clock (seconds since the epoch, UTC).
    """

    _fetcher: Fetcher
    _day: date
    generation: str
    _closing: StoredSnapshot | None

    def __post_init__(self) -> None:
        self._source, self._store = self._fetcher.source, self._fetcher.store
        self.keys = raw.newest_pages(self._store, self.generation)
        self.fetched_at: list[float] = []

    def take_over(self, opening_sn: int) -> None:
        """Begin with the last page of the day before if it reaches into this one; copied, so that each day is whole."""
        before = raw.manifests(self._fetcher.account, self._day - timedelta(days=1))
        try:
            newest = self._store.newest(before, ".json")
            pages = raw.newest_pages(self._store, self._store.read_json(newest)["history"]) if newest else {}
            cursor = max((cursor for cursor in pages if cursor <= opening_sn), default=None)
            if cursor is None:
                return
            data = self._store.read(pages[cursor])
            page = self._source.read_page(raw.unpack(data, pages[cursor]).body)
            if top_of(page, self._source.page_limit) <= opening_sn:
                return
        except (InvalidResponse, StoreDamaged) as error:
            self._fetcher.log(f"the pages of the day before cannot be used for {self._day} ({error})")
            return
        self.keys[cursor] = raw.page_key(self.generation, cursor, 1)
        self._store.put(self.keys[cursor], data)
        self._fetcher.log(
            f"changes of {self._day}: the last page of the day before, from sn {cursor}, holds the first ones already"
        )

    def first_cursor(self, opening_sn: int) -> int:
        """Where the day begins: behind the opening number, or with a page of the day before that reaches there."""
        first = max((cursor for cursor in self.keys if cursor <= opening_sn), default=opening_sn + 1)
        if first <= opening_sn and self._stored(first)[0] is None:
            # It is not fetched again: the day's own pages begin behind the opening.
            del self.keys[first]
            return opening_sn + 1
        return first

    def page_at(self, cursor: int) -> tuple[Page, bool]:
        """The page that begins at a cursor, and whether all up to the closing was there when it was fetched."""
        page, all_there, trouble = self._stored(cursor)
        if page is None:
            page, all_there = self._fetched(cursor, trouble)
        return page, all_there

    def _stored(self, cursor: int) -> tuple[Page | None, bool, str]:
        key = self.keys.get(cursor)
        if key is None:
            return None, False, ""
        try:
            stored = raw.read(self._store, key)
            page = self._read(stored)
        except (InvalidResponse, StoreDamaged) as error:
            return None, False, self._fetcher.unusable(key, error)
        all_there = self._reaches_the_closing(stored)
        if not all_there and (self._source.comes_late or top_of(page, self._source.page_limit) < cursor):
            # Fetched when nothing had happened yet; or what comes in any order may stand before what it holds.
            return None, False, ""
        return page, all_there, ""

    def _fetched(self, cursor: int, trouble: str) -> tuple[Page, bool]:
        closing_sn = None if self._closing is None else self._closing.snapshot.sn
        response = self._fetcher.fetch(
            lambda: self._source.fetch_changes(cursor, self._day, closing_sn),
            "history",
            self._day,
            f"the page of changes of {self._day} from sn {cursor} on",
            trouble,
        )
        before = self.keys.get(cursor)
        key = raw.page_key(self.generation, cursor, 1 if before is None else raw.attempt_of(before) + 1)
        ours = self._fetcher.keep(key, response, "history", lambda: self._source.read_page(response.body).account_ref)
        # If another copy of this task was faster, its page is the one that counts.
        stored = raw.read(self._store, key)
        self.keys[cursor] = key
        self.fetched_at.append(stored.server_at)
        page = self._read(stored)
        self._fetcher.log(f"changes of {self._day}: the page from sn {cursor} holds {len(page)} records")
        return page, ours or self._closing is None or self._reaches_the_closing(stored)

    def _read(self, stored: raw.RawResponse) -> Page:
        page = self._source.read_page(stored.body)
        self._fetcher.check_same_account("history", page.account_ref)
        return page

    def _reaches_the_closing(self, stored: raw.RawResponse) -> bool:
        if self._closing is None:
            return False
        if self._source.comes_late:
            return stored.sent_at >= self._closing.known_at
        settled_at = self._closing.snapshot.at_ms / 1000 + _SETTLED_S
        return stored.sent_at >= min(self._closing.known_at, settled_at)


def _legs(step: Step, opening_sn: int, closing_sn: int) -> pa.Table:
    sn = step.page.legs["sn"]
    first, last = max(step.cursor, opening_sn + 1), min(step.end - 1, closing_sn)
    return step.page.legs.filter(pc.and_(pc.greater_equal(sn, first), pc.less_equal(sn, last)))


def _late(page: Page, closing: StoredSnapshot | None) -> list[int]:
    if closing is None:
        return []
    sn, at_ms = page.legs["sn"], page.legs["at"].cast(pa.int64())
    beyond = pc.and_(pc.greater(sn, closing.snapshot.sn), pc.less_equal(at_ms, closing.snapshot.at_ms))
    found: list[int] = sn.filter(beyond).to_pylist()
    return found
