"""Receipts: immutable objects that say what was planned and what was answered, and how they are read back.

::

    receipts/<account>/<day>/<destination>/
        begun/0001.json                 for which balances a delivery stands, written before anything else
        so-far/0001.json                the same of a delivery while the day goes on
        <batch id>/planned.json         the rows of a batch and their numbers, written before the first request
        <batch id>/answered/0001.json   one report for each request that got an answer, or lost it
        <batch id>/resolved/0001.json   what a person found out about rows by asking
        local/begun-0001/0001.json      what was rejected or ignored before anything was sent, by the delivery of a mark
        agreed/begun-0001/0001.json     keys that hold this day's very amount, though other receipts tell otherwise
        see-<other day>.json            that day's run planned rows whose instant lies on this day

Planned comes before the request and answered after it, so a crash in between leaves rows that are *planned*: they may
have been sent. What was certainly not sent (no connection, 429) leaves no report either, see ``outcomes``. Amounts
are text; there is no secret in a receipt.

**Which days are read.** A key can be asked for by more than one day's run: a day's close is the next one's open, and a
record's time can lie outside its day. A run of day D plans, without more ado, rows whose instant lies on the UTC days
D and D+1; for any other instant it first leaves a pointer (``see-D``) at the instant's own day. So whatever was
planned for an instant of day U lies under U-1, under U, or under a day that a pointer at U names: reading these finds
every attempt for an instant, in whatever order the days were run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec

from balance_bridge.errors import StoreDamaged
from balance_bridge.load.batches import Batch, Row
from balance_bridge.load.destination import LOCAL, LocalRejection, Prepared
from balance_bridge.load.history import Claim, History
from balance_bridge.load.numbers import DAY_MS, day_start_ms, utc_day
from balance_bridge.load.outcomes import PLANNED, RESOLVED, Outcome, Status, fold
from balance_bridge.load.receipt_documents import (
    VERSION,
    Agreed,
    Answered,
    Begun,
    Document,
    Local,
    LocalRow,
    Planned,
    Pointer,
    Resolved,
    decode,
    encode,
    time_text,
)
from balance_bridge.load.replies import Reply
from balance_bridge.store import Store

_DAY = timedelta(days=1)
_BEGUN, _SO_FAR = "begun", "so-far"
_LOCAL, _AGREED = "local", "agreed"


class Receipts:
    """The receipts of one account at one destination.

    Args:
        store: Where they lie.
        account: The account's name.
        destination: The destination's name. Under another name, nothing of what was delivered is known.
    """

    def __init__(self, store: Store, account: str, destination: str) -> None:
        self._store = store
        self._account = account
        self._destination = destination

    def begin(self, day: date, prepared: Prepared, *, so_far: bool = False) -> str:
        """Write down for which balances a delivery stands, before the receipts are read.

        Args:
            day: The UTC day.
            prepared: The balances, and what is left out.
            so_far: Whether the day goes on, and they are not all that it will have.

        Returns:
            The mark: the same for all deliveries that stand for the same balances, as long as none stands for others.
        """
        # All that is sent but the number: two copies with different settings would give one number two contents.
        lines = sorted(msgspec.json.encode((each.key, each.amount, each.wire)) for each in prepared.candidates)
        out = sorted(msgspec.json.encode((each.balance.asset, each.balance.at_ms)) for each in prepared.rejected)
        out += sorted(msgspec.json.encode((each.asset, each.at_ms, "ignored")) for each in prepared.ignored)
        document = Begun(VERSION, len(lines), hashlib.sha256(b"\n".join(lines + out)).hexdigest())
        return self._store.append(f"{self._folder(day)}/{_SO_FAR if so_far else _BEGUN}", ".json", encode(document))

    def is_overtaken(self, day: date, mark: str) -> bool:
        """Whether a delivery of the day began after the one with this mark, and stands for other balances.

        A delivery of the whole day stands for all that one of the day so far does, and is never overtaken by one.
        """
        folder = self._folder(day)
        if mark.startswith(f"{folder}/{_SO_FAR}/") and self._store.exists(f"{folder}/{_BEGUN}/0001.json"):
            return True
        return self._store.has_follower(mark)

    def plan(self, day: date, batch: Batch, *, kind: str, run_id: str, now_ms: int) -> bool:
        """Write down what is about to be sent.

        Returns:
            False if the very same batch was planned before; that receipt stays as it is.
        """
        document = Planned(
            version=VERSION,
            account=self._account,
            day=day.isoformat(),
            destination=self._destination,
            kind=kind,
            run_id=run_id,
            created_at=time_text(now_ms / 1000),
            rows=list(batch.rows),
        )
        return self._store.put(f"{self._folder(day)}/{batch.id}/planned.json", encode(document))

    def answer(
        self, day: date, batch: Batch, reply: Reply, *, run_id: str, after: Mapping[str, int] | None = None
    ) -> None:
        """Write down what became of a request.

        Args:
            day: The UTC day.
            batch: What was sent.
            reply: What was answered.
            run_id: Who sent it.
            after: If another run has overtaken this one: per number the last attempt that it may have followed.
        """
        document = Answered(
            version=VERSION,
            run_id=run_id,
            sent_at=time_text(reply.sent_at),
            ended_at=time_text(reply.ended_at),
            http_status=reply.status or None,
            request_id=reply.request_id,
            body_sha256=reply.body_sha256,
            foreign_results=reply.foreign,
            outcomes=dict(reply.outcomes),
            refused_whole=reply.whole,
            after=dict(after) if after else msgspec.UNSET,
        )
        self._store.append(f"{self._folder(day)}/{batch.id}/answered", ".json", encode(document))

    def reports(self, day: date, batch_id: str) -> tuple[int, dict[str, Outcome]]:
        """How many reports a batch has, and what they amount to by number."""
        keys = self._store.series(f"{self._folder(day)}/{batch_id}/answered", ".json")
        return len(keys), _folded(self._read(key, Answered).outcomes for key in keys)

    def resolve(
        self, day: date, batch_id: str, numbers: Iterable[str], status: Status, *, by: str, reason: str, now_ms: int
    ) -> str:
        """Write down what a person found out about rows whose outcome was not known.

        It counts as one report more: an acceptance that an answer has told, or tells later, still outweighs it.

        Args:
            day: The UTC day under which the batch lies.
            batch_id: The batch.
            numbers: The communication numbers.
            status: ``accepted`` or ``rejected``.
            by: Who found it out.
            reason: How.
            now_ms: UTC milliseconds since the epoch.

        Returns:
            The receipt's key.
        """
        outcome = Outcome(status, RESOLVED, f"{by}: {reason}")
        document = Resolved(VERSION, by, reason, time_text(now_ms / 1000), dict.fromkeys(sorted(numbers), outcome))
        return self._store.append(f"{self._folder(day)}/{batch_id}/resolved", ".json", encode(document))

    def last_refusal(self, day: date, batch_id: str) -> Outcome | None:
        """How a batch ended, if its last report is that it was refused as a whole."""
        newest = self._store.newest(f"{self._folder(day)}/{batch_id}/answered", ".json")
        if newest is None:
            return None
        report = self._read(newest, Answered)
        return next(iter(report.outcomes.values()), None) if report.refused_whole else None

    def local(self, day: date, mark: str, rejected: Iterable[LocalRejection], ignored: Mapping[str, int]) -> None:
        """Write down what the delivery of a mark does not send at all; nothing, if there is and was nothing to say.

        Where others have begun, there is: that it is nothing. One of them may be alive and write down otherwise later.
        """
        rows = [
            LocalRow(each.balance.asset, each.balance.at_ms, format(each.balance.amount, "f"), LOCAL, each.text)
            for each in rejected
        ]
        if rows or ignored or self._follows(day, _LOCAL):
            # Without run id and time, so that a repeated run that finds the same adds nothing.
            self._append(day, _LOCAL, mark, Local(VERSION, rows, dict(sorted(ignored.items()))))

    def agree(self, day: date, mark: str, claims: Sequence[Claim]) -> None:
        """Write down the claims of the delivery of a mark; likewise."""
        if claims or self._follows(day, _AGREED):
            self._append(day, _AGREED, mark, Agreed(VERSION, list(claims)))

    def point(self, day: date, rows: Iterable[Row | Claim]) -> None:
        """Leave a pointer at every other day on which one of the rows' instants lies."""
        homes = {row.at_ms // DAY_MS for row in rows} - {day_start_ms(day) // DAY_MS, day_start_ms(day) // DAY_MS + 1}
        for home in sorted(homes):
            key = f"{self._folder(utc_day(home * DAY_MS))}/see-{day.isoformat()}.json"
            self._store.put(key, encode(Pointer(VERSION, day.isoformat())))

    def history(self, day: date, instants_ms: Iterable[int]) -> History:
        """Read every attempt that can concern a day's run.

        Args:
            day: The run's day.
            instants_ms: The instants (UTC ms) that it is about to deliver.

        Raises:
            StoreDamaged: If a receipt is not JSON, not of the known version or not of its shape.
        """
        near = {day - _DAY, day, day + _DAY}
        for number in {at_ms // DAY_MS for at_ms in instants_ms} - {day_start_ms(day) // DAY_MS}:
            home = utc_day(number * DAY_MS)
            if home != day + _DAY:
                near |= {home - _DAY, home, home + _DAY}
        listings = {each: self._store.list(self._folder(each)) for each in sorted(near)}
        pointed: set[date] = set()
        for listing in listings.values():
            pointed |= {_pointed(key) for key in listing if "/see-" in key}
        for each in sorted(pointed - near):
            listings[each] = self._store.list(self._folder(each))
        history = History()
        for each, listing in sorted(listings.items()):
            counts = self._read_day(each, listing, history)
            if each == day:
                history.answers = counts
        history.close()
        return history

    def batches(self, day: date) -> list[StoredBatch]:
        """Every batch that lies under a day, with all that is known of it, in the order of their planning.

        Raises:
            StoreDamaged: If a receipt cannot be read, or a batch has answers and was never planned.
        """
        listed: dict[str, list[str]] = {}
        for key in self._store.list(self._folder(day)):
            batch, _, rest = key.removeprefix(f"{self._folder(day)}/").partition("/")
            if rest == "planned.json" or rest.startswith(("answered/", "resolved/")):
                listed.setdefault(batch, []).append(key)
        found = []
        for batch, keys in listed.items():
            planned = f"{self._folder(day)}/{batch}/planned.json"
            found.append(
                StoredBatch(
                    batch,
                    self._read(planned, Planned),
                    [self._read(key, Answered) for key in keys if "/answered/" in key],
                    [self._read(key, Resolved) for key in keys if "/resolved/" in key],
                )
            )
        return sorted(found, key=lambda each: (each.planned.created_at, each.id))

    def local_rejections(self, day: date) -> list[LocalRow]:
        """What the last run of a day rejected before anything was sent."""
        newest = self._latest(day, _LOCAL)
        return [] if newest is None else self._read(newest, Local).rejected

    def ignored(self, day: date) -> dict[str, int]:
        """By asset, the balances that the last run of a day left out, as the accounts file said."""
        newest = self._latest(day, _LOCAL)
        return {} if newest is None else self._read(newest, Local).ignored

    def _read_day(self, day: date, listing: Sequence[str], history: History) -> dict[str, int]:
        folder = self._folder(day)
        planned: dict[str, str] = {}
        answered: dict[str, list[str]] = {}
        resolved: dict[str, list[str]] = {}
        agreed = _latest(key for key in listing if key.startswith(f"{folder}/{_AGREED}/"))
        if agreed is not None:
            for claim in self._read(agreed, Agreed).claims:
                history.claims.setdefault(claim.key, []).append(claim)
        for key in listing:
            batch, _, rest = key.removeprefix(f"{folder}/").partition("/")
            if rest == "planned.json":
                planned[batch] = key
            elif rest.startswith("answered/"):
                answered.setdefault(batch, []).append(key)
            elif rest.startswith("resolved/"):
                resolved.setdefault(batch, []).append(key)
        for batch in (answered.keys() | resolved.keys()) - planned.keys():
            raise StoreDamaged(
                f"{self._store.describe(f'{folder}/{batch}')} has answers, but its planned.json is missing"
            )
        for batch, key in planned.items():
            answers = [self._read(each, Answered) for each in answered.get(batch, ())]
            found = [self._read(each, Resolved) for each in resolved.get(batch, ())]
            reports = _folded([*(each.outcomes for each in answers), *(each.outcomes for each in found)])
            after = dict(pair for each in answers if each.after for pair in each.after.items())
            for row in self._read(key, Planned).rows:
                history.add(row, batch, reports.get(row.number, PLANNED), after.get(row.number, 0))
        return {batch: len(keys) for batch, keys in answered.items()}

    def _latest(self, day: date, what: str) -> str | None:
        return _latest(self._store.list(f"{self._folder(day)}/{what}"))

    def _follows(self, day: date, what: str) -> bool:
        folder = self._folder(day)
        marks = [key for kind in (_BEGUN, _SO_FAR) for key in self._store.list(f"{folder}/{kind}")]
        return len(marks) > 1 or self._latest(day, what) is not None

    def _append(self, day: date, what: str, mark: str, document: Local | Agreed) -> None:
        kind, _, name = mark.removeprefix(f"{self._folder(day)}/").partition("/")
        scope = f"{kind}-{name.removesuffix('.json')}"
        self._store.append(f"{self._folder(day)}/{what}/{scope}", ".json", encode(document))

    def _folder(self, day: date) -> str:
        return f"receipts/{self._account}/{day.isoformat()}/{self._destination}"

    def _read(self, key: str, kind: type[Document]) -> Document:
        return decode(self._store, key, kind)


@dataclass(frozen=True)
class StoredBatch:
    """A batch as its receipts tell of it.

    Attributes:
        id: Its id.
        planned: What was about to be sent.
        answers: What became of each request, oldest first.
        resolved: What people found out, oldest first.
    """

    id: str
    planned: Planned
    answers: list[Answered]
    resolved: list[Resolved]


def _latest(keys: Iterable[str]) -> str | None:
    """The last object of the delivery that began last: one that was overtaken may have written after that."""
    return max(keys, key=lambda key: (f"/{_BEGUN}-" in key, key), default=None)


def _folded(reports: Iterable[Mapping[str, Outcome]]) -> dict[str, Outcome]:
    folded: dict[str, Outcome] = {}
    for report in reports:
        for number, outcome in report.items():
            folded[number] = fold((folded[number], outcome)) if number in folded else outcome
    return folded


def _pointed(key: str) -> date:
    text = key.rpartition("/see-")[2].removesuffix(".json")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise StoreDamaged(f"{key} points to {text!r}, which is no day") from error
