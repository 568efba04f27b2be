"""Fetching for an account: never what is known not to be there, and never for another account."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
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
from balance_bridge.extract.source import Source
from balance_bridge.store import Store, to_json
from balance_bridge.transport import Response

Endpoint = Literal["snapshot", "history"]


@dataclass
class Fetcher:
    """Fetches for one account, and notes in the store whose account it is and what the exchange does not have.

    Attributes:
        source: The account at the exchange.
        store: Where the notes lie.
        account: The account's name in the accounts file.
        asked_by: The run, and its reason to fetch again if it has one.
        log: Called with what of the store cannot be used.
    """

    source: Source
    store: Store
    account: str
    asked_by: str
    log: Callable[[str], None]

    def fetch(
        self, request: Callable[[], Response], endpoint: Endpoint, day: date, what: str, trouble: str
    ) -> Response:
        """Fetch something of a day, unless that is known to be vain.

        Args:
            request: Fetches it.
            endpoint: Where from.
            day: The UTC day; of a snapshot the one that it opens.
            what: What it is, for messages.
            trouble: What is wrong with what the store has; empty if it has nothing.
        """
        who, oldest = self.source.who, self.source.oldest()
        note = self._unavailable(endpoint, day)
        if oldest is not None and day < oldest:
            raise RetentionExceeded(
                f"{what} is neither in the store nor at {who}",
                why=trouble or "the exchange no longer serves that day",
                do=f"The oldest available day is {oldest}",
            )
        if self.store.exists(note) and (said := self.store.read_json(note))["asked_by"] == self.asked_by:
            raise (RetentionExceeded if said["gone"] else RequestRefused)(f"{what}: {said['message']}")
        try:
            return request()
        except NotYetAvailable as error:
            goes_on = day >= self.source.today()
            if oldest is None or self.source.comes_late or (goes_on and endpoint == "snapshot"):
                raise
            # At the edge the window may close while we ask.
            gone = not goes_on and day <= oldest + timedelta(days=1)
            if not goes_on:
                document = {"asked_by": self.asked_by, "gone": gone, "message": f"{who} does not have it ({error})"}
                self.store.put(note, to_json(document))
            if gone:
                raise RetentionExceeded(
                    f"{what} is neither in the store nor at {who} any more ({error})",
                    why=trouble,
                    do=f"The oldest available day is {oldest + timedelta(days=1)} or later",
                ) from error
            raise RequestRefused(
                f"{what}: {who} does not have it, although it should by now ({error})",
                why=trouble,
                do=f"Ask {who} for it, then clear this task",
            ) from error

    def is_unavailable(self, day: date) -> bool:
        """Whether the exchange has said that it does not have the day."""
        notes = [self._unavailable("snapshot", each) for each in (day, day + timedelta(days=1))]
        return any(map(self.store.exists, [*notes, self._unavailable("history", day)]))

    def keep(self, key: str, response: Response, endpoint: Endpoint, account_ref: Callable[[], str]) -> bool:
        """Store a response; before, note the account that the first one of an endpoint names.

        Returns:
            False if there was an object of that key before, which counts.
        """
        if not self.store.exists(self._account_note(endpoint)):
            # What cannot be read names nobody, and is for whoever reads it to refuse.
            with suppress(InvalidResponse):
                self.store.put(self._account_note(endpoint), to_json({"account_ref": account_ref()}))
        return self.store.put(key, raw.pack(response, asked_by=self.asked_by))

    def check_same_account(self, endpoint: Endpoint, account_ref: str) -> None:
        """Refuse what the store has of another account than the one noted.

        Raises:
            Contradiction: If it names another one, or none is noted any more: who removes the note wants it noted, and
                what is needed fetched, again.
        """
        key = self._account_note(endpoint)
        if not self.store.exists(key):
            raise Contradiction(f"{self.store.describe(key)} is missing, so it is not known whose account this is")
        known = self.store.read_json(key)["account_ref"]
        if known != account_ref:
            raise Contradiction(
                f"{self.source.who} responds for account {account_ref}, and did for {known} so far ({endpoint})",
                why="the connection leads to another account, or the account was renamed",
                do="Point the connection back, or give the other account a name of its own in the accounts file, and "
                f"run the day again. If it was renamed, remove {self.store.describe(key)} first",
            )

    def unusable(self, key: str, error: InvalidResponse | StoreDamaged) -> str:
        """Log that an object of the store cannot be used, and why; returns that for messages."""
        self.log(f"{self.store.describe(key)} cannot be used: {error}")
        return f"what the store has cannot be used: {error}"

    def _account_note(self, endpoint: Endpoint) -> str:
        return f"raw/{self.account}/account/{'any' if self.source.one_account_name else endpoint}.json"

    def _unavailable(self, endpoint: Endpoint, day: date) -> str:
        return f"raw/{self.account}/{day}/unavailable/{endpoint}.json"
