"""Balances and changes that somebody, such as a custodian or a bank, puts into a folder or bucket as files.

What a file says is kept word for word in the raw store before anything of it is interpreted; so a file that is changed
or taken away later changes no day that was done. The format is described in ``docs/sources.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import ConnectionFailed, InvalidResponse, NotYetAvailable, RequestRefused
from balance_bridge.extract import files_responses as responses
from balance_bridge.extract.source import Page, SnapshotResponse, Source
from balance_bridge.store import StorePath
from balance_bridge.transport import Response

_ENDINGS = (".csv", ".json")


class FilesAccount(Source):
    """One account whose balances and changes come as files.

    Args:
        root: The folder with ``snapshots`` and ``changes`` in it.
        retention_days: How many days back the files are there; None if none is ever taken away.
        settle: How long after a day's end its closing snapshot is first read.
        clock: Where instants come from.
    """

    # While a day goes on, whatever comes later stands in more files: only a page without any record is the last.
    page_limit = 1
    comes_late = True
    one_account_name = True

    def __init__(
        self,
        root: Path | StorePath,
        *,
        retention_days: int | None = None,
        settle: timedelta = timedelta(0),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._root: Any = root
        self._retention_days = retention_days
        self.settle = settle
        self._clock = clock
        self.who = f"the folder {root}"

    def now(self) -> float:
        """Seconds since the epoch (UTC), by this machine's clock."""
        return self._clock.wall()

    def oldest(self) -> date | None:
        """The oldest day whose files are still there."""
        return None if self._retention_days is None else self.today() - timedelta(days=self._retention_days)

    def check(self) -> str:
        """See whether the folder can be listed.

        Returns:
            What was seen.

        Raises:
            RequestRefused: It may not be read.
            ConnectionFailed: It cannot be reached.
        """
        counts = {folder: len(self._names(folder)) for folder in ("snapshots", "changes")}
        return f"{self.who} holds {counts['snapshots']} snapshots and {counts['changes']} files of changes"

    def fetch_snapshot(self, day: date) -> Response:
        """Read the file of the balances at the start of a UTC day.

        Raises:
            NotYetAvailable: There is none.
            RequestRefused: There are two, or it may not be read.
            ConnectionFailed: The folder cannot be reached.
            InvalidResponse: It is not UTF-8.
        """
        wanted = [f"{day}{ending}" for ending in _ENDINGS]
        sent_at = self._clock.wall()
        names = [name for name in self._names("snapshots") if name in wanted]
        if not names:
            raise NotYetAvailable(f"{self.who} has neither snapshots/{wanted[0]} nor snapshots/{wanted[1]}")
        if len(names) > 1:
            raise RequestRefused(
                f"{self.who} has both snapshots/{wanted[0]} and snapshots/{wanted[1]}: take away the one that is wrong"
            )
        return self._response(f"snapshots/{names[0]}", {"files": self._texts("snapshots", names)}, sent_at)

    def fetch_changes(self, from_sn: int, day: date, closing_sn: int | None) -> Response:
        """Read the files of the changes of a UTC day, and those of the days before and after that are there.

        What happened around midnight is booked a little later, and senders file it by either time.

        Raises:
            NotYetAvailable: There is no file at all, or none holds the change with which the day closes.
            RequestRefused: One may not be read.
            ConnectionFailed: The folder cannot be reached.
            InvalidResponse: One is not UTF-8.
        """
        sent_at = self._clock.wall()
        days = [day + timedelta(days=ahead) for ahead in (-1, 0, 1)]
        names = [name for name in self._names("changes") if name.endswith(_ENDINGS) and _is_of(name, days)]
        content = {"from_sn": from_sn, "files": self._texts("changes", names)}
        found = self._response(f"changes/{day}*", content, sent_at)
        if not names or (closing_sn is not None and not _holds(found.body, closing_sn)):
            lacks = "" if closing_sn is None else f" with sn {closing_sn}, which closes the day"
            raise NotYetAvailable(
                f"{self.who} has no change of {day}{lacks}",
                why=f"neither changes/{day}*.csv nor changes/{day}*.json, nor the files of the days beside it hold it",
            )
        return found

    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        """See :func:`balance_bridge.extract.files_responses.read_snapshot`."""
        return responses.read_snapshot(body, day)

    def read_page(self, body: bytes) -> Page:
        """See :func:`balance_bridge.extract.files_responses.read_page`."""
        return responses.read_page(body)

    def _response(self, what: str, content: dict[str, Any], sent_at: float) -> Response:
        body = json.dumps(content, ensure_ascii=False).encode()
        return Response(f"FILES {self._root}/{what}", 200, {}, body, sent_at, self._clock.wall())

    def _names(self, folder: str) -> list[str]:
        """The names of the files in a folder that are whole, sorted; a folder that is not there has none."""
        with self._reached(folder):
            filesystem = getattr(self._root, "fs", None)
            if filesystem is not None:
                # Listings of buckets are remembered; what came since would be overlooked.
                filesystem.invalidate_cache()
            try:
                names = sorted(path.name for path in (self._root / folder).iterdir())
            except FileNotFoundError:
                return []
        # "." and "_" mark a file that is still being written; so does any ending but ours.
        return [name for name in names if not name.startswith((".", "_"))]

    def _texts(self, folder: str, names: Sequence[str]) -> dict[str, str]:
        texts = {}
        for name in names:
            place = f"{folder}/{name}"
            with self._reached(place):
                data: bytes = (self._root / folder / name).read_bytes()
            try:
                texts[place] = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidResponse(
                    f"{self._root}/{place}: byte {error.start} is not UTF-8: have the file written as UTF-8"
                ) from error
        return texts

    @contextmanager
    def _reached(self, place: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotYetAvailable(f"{self._root}/{place} was taken away while it was being read") from error
        except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
            raise RequestRefused(f"{self._root}/{place} may not be read: {error}") from error
        except OSError as error:
            raise ConnectionFailed(f"{self._root}/{place} cannot be reached: {error}") from error


def _is_of(name: str, days: Sequence[date]) -> bool:
    """Whether a file of changes is one of these days: its name begins with the date, and something else follows."""
    return any(name.startswith(str(day)) and not name[len(str(day))].isalnum() for day in days)


def _holds(body: bytes, sn: int) -> bool:
    """Whether a page holds a change; also if it is malformed, which is for whoever reads it to say."""
    try:
        page = responses.read_page(body)
    except InvalidResponse:
        return True
    return any(record.sn == sn for records in page.lists for record in records)
