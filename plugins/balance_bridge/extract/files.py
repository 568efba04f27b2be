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
from typing import TYPE_CHECKING, Any

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import ConnectionFailed, InvalidResponse, NotYetAvailable, RequestRefused
from balance_bridge.extract import files_answers as answers
from balance_bridge.extract.source import Page, Record, SnapshotResponse, Source
from balance_bridge.store import StorePath
from balance_bridge.transport import Response

if TYPE_CHECKING:
    import pyarrow as pa

_ENDINGS = (".csv", ".json")


class FilesSource(Source):
    """One account whose balances and changes come as files.

    Args:
        root: The folder with ``snapshots`` and ``changes`` in it.
        retention_days: How many days back the files are there; None if none is ever taken away.
        clock: Where instants come from.
    """

    # What the files of a day do not hold may stand in those of the days behind: only a page without any record ends it.
    page_limit = 1

    def __init__(
        self, root: Path | StorePath, *, retention_days: int | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._root: Any = root
        self._retention_days = retention_days
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
        return self._answer(f"snapshots/{names[0]}", {"files": self._texts("snapshots", names)}, sent_at)

    def fetch_changes(self, from_sn: int, day: date) -> Response:
        """Read the files of the changes of a UTC day, and those of the day after that are there already.

        Raises:
            NotYetAvailable: There is no file of the day.
            RequestRefused: One may not be read.
            ConnectionFailed: The folder cannot be reached.
            InvalidResponse: One is not UTF-8.
        """
        sent_at = self._clock.wall()
        names = [name for name in self._names("changes") if name.endswith(_ENDINGS)]
        of_day = [name for name in names if _is_of(name, day)]
        if not of_day:
            raise NotYetAvailable(f"{self.who} has neither changes/{day}*.csv nor changes/{day}*.json")
        # What happened around midnight is booked a little later, and some senders file it by that.
        late = [name for name in names if _is_of(name, day + timedelta(days=1))]
        content = {"from_sn": from_sn, "files": self._texts("changes", [*of_day, *late])}
        return self._answer(f"changes/{day}*", content, sent_at)

    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        """See :func:`balance_bridge.extract.files_answers.read_snapshot`."""
        return answers.read_snapshot(body, day)

    def read_page(self, body: bytes) -> Page:
        """See :func:`balance_bridge.extract.files_answers.read_page`."""
        return answers.read_page(body)

    def legs(self, records: Sequence[Record]) -> pa.Table:
        """See :func:`balance_bridge.extract.files_answers.legs`."""
        return answers.legs(records)

    def _answer(self, what: str, content: dict[str, Any], sent_at: float) -> Response:
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


def _is_of(name: str, day: date) -> bool:
    """Whether a file of changes is one of a day: its name begins with the date, and something else follows."""
    return name.startswith(str(day)) and not name[len(str(day))].isalnum()
