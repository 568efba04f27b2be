"""One day of one account out of the exchange and into the store, asking only for what the store does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from typing import Literal

from balance_bridge.errors import (
    Contradiction,
    InvalidResponse,
    NotYetAvailable,
    RequestRefused,
    RetentionExceeded,
    StoreDamaged,
)
from balance_bridge.extract import raw
from balance_bridge.extract.pages import attempt_of, first_cursor, newest_pages, page_key
from balance_bridge.extract.paging import NO_END, end_of, walk
from balance_bridge.extract.source import Page, Source
from balance_bridge.store import Store, to_json
from balance_bridge.transform.snapshot import Snapshot
from balance_bridge.transport import Response

# So long after an instant everything before it has its sequence number, whatever the clocks of the machines say.
_SETTLED_S = 600.0


@dataclass(frozen=True)
class StoredSnapshot:
    """A day's opening balances as the store has them.

    Attributes:
        key: The raw object.
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        snapshot: Sequence number, instant and balances.
        known_at: Seconds since the epoch (UTC) at which the answer was whole.
    """

    key: str
    account_ref: str
    snapshot: Snapshot
    known_at: float


@dataclass(frozen=True)
class StoredHistory:
    """The changes of a day as the store has them.

    Attributes:
        generation: The folder of the pages.
        pages: Number of pages.
        asked: Number of pages that had to be asked for now.
    """

    generation: str
    pages: int
    asked: int


def read_snapshot(source: Source, store: Store, key: str, day: date) -> StoredSnapshot:
    """A snapshot of the store.

    Raises:
        StoreDamaged: If it is missing or damaged.
        InvalidResponse: If it is not what the exchange documents.
    """
    stored = raw.read(store, key)
    answer = source.read_snapshot(stored.body, day)
    return StoredSnapshot(key, answer.account_ref, answer.snapshot, stored.ended_at)


class DayExtraction:
    """Snapshots and changes of one account, from the store or else from the exchange.

    Args:
        source: The account at the exchange.
        store: Where raw answers lie.
        account: The account's name in the accounts file.
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
        asked_by: str,
        again: str | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._store = store
        self._account = account
        self._asked_by = f"{asked_by} ({again})" if again else asked_by
        self._anew = again is not None
        self._log = log

    def snapshot(self, day: date) -> StoredSnapshot:
        """The balances at the start of a UTC day.

        Raises:
            NotYetAvailable: The day is today and the exchange has no snapshot yet.
            RetentionExceeded: Neither the store nor the exchange has it.
            RequestRefused: The exchange has none, although the day lies within its window.
            InvalidResponse: The answer is not what the exchange documents. It is kept in the store all the same.
        """
        series = f"raw/{self._account}/{day}/snapshot"
        newest = self._store.newest(series, raw.SUFFIX)
        trouble = ""
        if newest is not None:
            try:
                stored = None
                if not self._anew or self._is_ours([newest]):
                    stored = read_snapshot(self._source, self._store, newest, day)
            except (InvalidResponse, StoreDamaged) as error:
                trouble = self._unusable(newest, error)
            else:
                if stored is not None:
                    return self._of_this_account(stored)
        what = f"the snapshot of {day}"
        self._log(f"asking for {what}")
        answer = self._ask(lambda: self._source.fetch_snapshot(day), day, what, trouble)
        number = 1 if newest is None else attempt_of(newest) + 1
        key = f"{series}/{number:04d}{raw.SUFFIX}"
        self._store.put(key, raw.pack(answer, asked_by=self._asked_by))
        # If another copy of this task was faster, its snapshot is the one that counts.
        return self._of_this_account(read_snapshot(self._source, self._store, key, day))

    def history(
        self, day: date, opening: StoredSnapshot, closing: StoredSnapshot | None, *, verify_all: bool = False
    ) -> StoredHistory:
        """The changes of a day: every record in (opening sn, closing sn].

        Pages that the store has are gone on from; of those only the last is read, unless ``verify_all``.

        Args:
            day: The UTC day.
            opening: The snapshot at its start.
            closing: The one at its end; None for a day that is still going on: then everything that there is yet.
            verify_all: Read every stored page from the first, and ask anew for what is missing or damaged.

        Raises:
            RetentionExceeded: Neither the store nor the exchange has all of it.
            InvalidResponse: An answer is not what the exchange documents. It is kept in the store all the same.
            BudgetExhausted: As the source's budget decides; what was fetched so far is in the store.
        """
        if closing is not None:
            _check_pair(day, opening, closing)
        generation = self._generation(day)
        opening_sn = opening.snapshot.sn
        closing_sn = NO_END if closing is None else closing.snapshot.sn
        stored = newest_pages(self._store, generation)
        if not stored and not self._anew:
            # On a quiet day as well: what reaches over it holds the first records of a later one.
            stored = self._take_over(day, generation, opening_sn)
        if opening_sn == closing_sn:
            return StoredHistory(generation, len(stored), 0)
        asked = 0

        def page_at(cursor: int) -> tuple[Page, bool]:
            nonlocal asked
            page, all_there, trouble = self._stored_page(stored.get(cursor), cursor, closing)
            if page is None:
                page, all_there = self._asked_page(generation, stored.get(cursor), cursor, day, closing, trouble)
                asked += 1
                self._log(f"changes of {day}: the page from sn {cursor} holds {len(page)} records")
            self._check_same_account("history", page.account_ref)
            return page, all_there

        cursor = self._begin(stored, opening_sn, verify_all=verify_all)
        for _ in walk(page_at, limit=self._source.page_limit, cursor=cursor, closing_sn=closing_sn):
            pass
        return StoredHistory(generation, len(newest_pages(self._store, generation)), asked)

    def begun(self, day: date) -> bool:
        """Whether this very asking has the snapshot that opens the day: the first thing that it asks for."""
        newest = self._store.newest(f"raw/{self._account}/{day}/snapshot", raw.SUFFIX)
        return newest is not None and self._is_ours([newest])

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
                return raw.read(self._store, key).asked_by == self._asked_by
            except StoreDamaged as error:
                self._log(f"{key} cannot be read ({error}): looking at the next one")
        return False

    def _begin(self, stored: dict[int, str], opening_sn: int, *, verify_all: bool) -> int:
        if stored and not verify_all:
            # Each page was asked for from where the one before ended: the last one tells where to go on.
            return max(stored)
        first = first_cursor(iter(stored), opening_sn)
        # A page of the day before that is damaged is not asked for again: the day's own pages begin behind the opening.
        return first if self._stored_page(stored.get(first), first, None)[0] is not None else opening_sn + 1

    def _take_over(self, day: date, generation: str, opening_sn: int) -> dict[int, str]:
        """Begin with the last page of the day before if it reaches into this one; copied, so that each day is whole."""
        before = f"raw/{self._account}/{day - timedelta(days=1)}/whole"
        try:
            newest = self._store.newest(before, ".json")
            pages = newest_pages(self._store, self._store.read_json(newest)["history"]) if newest else {}
            cursor = max((cursor for cursor in pages if cursor <= opening_sn), default=None)
            if cursor is None:
                return {}
            data = self._store.read(pages[cursor])
            page = self._usable_page(raw.unpack(data, pages[cursor]).body)
            if end_of(page, limit=self._source.page_limit, cursor=cursor) <= opening_sn + 1:
                return {}
        except (InvalidResponse, StoreDamaged) as error:
            self._log(f"the pages of the day before are of no use for {day} ({error})")
            return {}
        key = page_key(generation, cursor, 1)
        self._store.put(key, data)
        self._log(f"changes of {day}: the last page of the day before, from sn {cursor}, holds the first ones already")
        return newest_pages(self._store, generation)

    def _stored_page(
        self, key: str | None, cursor: int, closing: StoredSnapshot | None
    ) -> tuple[Page | None, bool, str]:
        """The page, whether all up to the closing snapshot was there when it was asked for, and what is wrong."""
        if key is None:
            return None, False, ""
        try:
            stored = raw.read(self._store, key)
            page = self._usable_page(stored.body)
        except (InvalidResponse, StoreDamaged) as error:
            return None, False, self._unusable(key, error)
        all_there = _reaches(stored.sent_at, closing)
        if not all_there and end_of(page, limit=self._source.page_limit, cursor=cursor) == cursor:
            # Asked for when nothing had happened yet.
            return None, False, ""
        return page, all_there, ""

    def _unusable(self, key: str, error: InvalidResponse | StoreDamaged) -> str:
        self._log(f"{self._store.describe(key)} cannot be used ({error}): asking again")
        return f"; what the store has cannot be used: {error}"

    def _asked_page(
        self,
        generation: str,
        before: str | None,
        cursor: int,
        day: date,
        closing: StoredSnapshot | None,
        trouble: str,
    ) -> tuple[Page, bool]:
        what = f"the changes of {day} from sn {cursor} on"
        answer = self._ask(lambda: self._source.fetch_changes(cursor, day), day, what, trouble)
        key = page_key(generation, cursor, 1 if before is None else attempt_of(before) + 1)
        ours = self._store.put(key, raw.pack(answer, asked_by=self._asked_by))
        # If another copy of this task was faster, its page is the one that counts.
        stored = raw.read(self._store, key)
        page = self._usable_page(stored.body)
        return page, ours or closing is None or _reaches(stored.sent_at, closing)

    def _usable_page(self, body: bytes) -> Page:
        page = self._source.read_page(body)
        # Amounts and assets are only looked at as columns: a page is not usable before they are.
        self._source.legs(list(chain(*page.lists)))
        return page

    def _of_this_account(self, found: StoredSnapshot) -> StoredSnapshot:
        self._check_same_account("snapshot", found.account_ref)
        return found

    def _check_same_account(self, endpoint: Literal["snapshot", "history"], account_ref: str) -> None:
        """The first answer of each endpoint tells whose account it is; every later one must agree."""
        key = f"raw/{self._account}/account/{endpoint}.json"
        if not self._store.exists(key):
            self._store.put(key, to_json({"account_ref": account_ref}))
        known = self._store.read_json(key)["account_ref"]
        if known != account_ref:
            raise Contradiction(
                f"{self._source.who} answers about account {account_ref}, and answered about {known} so far "
                f"({endpoint}): was the connection pointed at another account? Point it back, or give the other one a "
                f"name of its own in the accounts file. If the account itself was renamed, remove "
                f"{self._store.describe(key)} and run the day again"
            )

    def _ask(self, ask: Callable[[], Response], day: date, what: str, trouble: str) -> Response:
        who, oldest = self._source.who, self._source.oldest()
        if oldest is not None and day < oldest:
            raise RetentionExceeded(
                f"{what}: {who} does not answer for it any more and the store does not have it; the oldest day to be "
                f"had is {oldest}{trouble}"
            )
        try:
            return ask()
        except NotYetAvailable as error:
            if oldest is None or day >= self._source.today():
                raise
            if day > oldest + timedelta(days=1):
                raise RequestRefused(
                    f"{what}: there is none at {who} ({error}), although there should be by now: ask there, then clear "
                    f"this task{trouble}"
                ) from error
            # The window closes while we ask.
            raise RetentionExceeded(
                f"{what}: {who} does not have it any more ({error}) and neither does the store; "
                f"the oldest day to be had is {oldest + timedelta(days=1)} or later{trouble}"
            ) from error


def _reaches(sent_at: float, closing: StoredSnapshot | None) -> bool:
    """Whether everything up to the closing snapshot was there when a page was asked for."""
    if closing is None:
        return False
    return sent_at >= closing.known_at or sent_at >= closing.snapshot.at_ms / 1000 + _SETTLED_S


def _check_pair(day: date, opening: StoredSnapshot, closing: StoredSnapshot) -> None:
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
