"""How a delivery ended: its counts, and the error that says what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from balance_bridge.errors import (
    BalanceBridgeError,
    OutcomeUnknown,
    RecordsRejected,
    SupersededRun,
    Unconfirmed,
)
from balance_bridge.load.documents import Action, Plan, Row
from balance_bridge.load.fold import LATE, LOCAL, Folded, Outcome, Status, no_longer_wanted, outcome_of, outcomes
from balance_bridge.load.numbers import rfc3339

_MAX_EXAMPLES = 5
_MAX_CODES = 10
TAKEN_OVER = "Another run of the day has taken over"


@dataclass
class Reason:
    """Why balances were rejected.

    Attributes:
        code: The destination's code, or ``LOCAL``.
        text: The reason in words, of the first one.
        count: Balances.
        assets: Up to five examples.
        together: Those refused only together with others, which may be good. They are not among the examples.
    """

    code: str
    text: str
    count: int = 0
    together: int = 0
    assets: list[str] = field(default_factory=list)


@dataclass
class DeliverySummary:
    """What became of each balance of a delivery.

    ``rows = accepted_now + accepted_before + seen + rejected + rejected_locally + unknown + ignored + pending``.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        dry_run: Whether it was a dry run.
        rows: Balances in all.
        accepted_now: Accepted by this delivery.
        accepted_before: Accepted before this delivery.
        seen: Settled, but not confirmed: the destination knows the number.
        rejected: Rejected by the destination.
        rejected_locally: Rejected by our own checks, before sending.
        unknown: May have arrived, and nobody knows what became of them.
        ignored: Left out by the accounts file.
        pending: To be sent, and not sent yet (all of a dry run).
        superseded: Of those to be sent: corrections of what was delivered before.
        resent: Of those to be sent: under a number that may have been sent before.
        other_keys: Balances held under keys or settings that the accounts file no longer has.
        example: One of them.
        doubt: An asset whose balance is unknown, and why.
        requests: Requests made, refused connections included.
        batches: Requests planned.
        divided: Requests that were refused as a whole and divided, to find the bad records.
        foreign: Results for numbers that were not sent.
        preview: Of a dry run: the store's key of what would be sent.
        reasons: Why balances were rejected, by the destination's code; our own checks by ``LOCAL`` and text.
    """

    account: str
    day: str
    destination: str
    dry_run: bool = False
    rows: int = 0
    accepted_now: int = 0
    accepted_before: int = 0
    seen: int = 0
    rejected: int = 0
    rejected_locally: int = 0
    unknown: int = 0
    ignored: int = 0
    pending: int = 0
    superseded: int = 0
    resent: int = 0
    other_keys: int = 0
    example: str = ""
    doubt: str = ""
    requests: int = 0
    batches: int = 0
    divided: int = 0
    foreign: int = 0
    preview: str = ""
    reasons: dict[str, Reason] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values that JSON can hold."""
        found = asdict(self)
        del found["_kept"]
        return found

    def count(self, folded: Folded, plan: Plan | None = None) -> None:
        """Count what became of each balance of the newest plan.

        Args:
            folded: The log.
            plan: One that is about to be written, and counts instead; what it sends is pending.
        """
        found = plan or folded.events.newest_plan
        rows = found.rows if found is not None else []
        if plan is not None:
            self._kept = {row.number for row in rows if row.action is not Action.SEND}
            sent = [row for row in rows if row.action is Action.SEND]
            self.superseded = sum(row.supersedes != "" for row in sent)
            self.resent = sum(row.number in folded.numbers and bool(folded.numbers[row.number].tries) for row in sent)
            self.other_keys, self.example = other_keys(plan, folded)
        self.rows, self.accepted_before, self.rejected_locally, self.reasons, self.doubt = len(rows), 0, 0, {}, ""
        counts = dict.fromkeys(Status, 0)
        for row in rows:
            if plan is not None and row.action is Action.SEND:
                counts[Status.PLANNED] += 1
                continue
            outcome = outcome_of(row, folded)
            counts[outcome.status] += 1
            if outcome.status is Status.ACCEPTED:
                self.accepted_before += row.number in self._kept
            elif outcome.status is Status.REJECTED:
                self._reject(row, outcome)
            elif outcome.status is Status.UNKNOWN:
                self.doubt = self.doubt or f"{row.asset} ({outcome.text or outcome.code})"
        self.accepted_now = counts[Status.ACCEPTED] - self.accepted_before
        self.rejected = counts[Status.REJECTED] - self.rejected_locally
        self.seen, self.unknown = counts[Status.SEEN], counts[Status.UNKNOWN]
        self.ignored, self.pending = counts[Status.IGNORED], counts[Status.PLANNED]

    def failure(self, *, max_rejected: int, on_unconfirmed: str) -> BalanceBridgeError | None:
        """The error with which the delivery ends, or None.

        Rejections come first, since they are permanent: after a transient error Airflow would try again, and what was
        rejected would go out once more although nobody has repeated the run.

        Args:
            max_rejected: Rejections tolerated per day before the task fails.
            on_unconfirmed: ``fail`` if balances that were seen and not confirmed make the task red.
        """
        refused, of = self.rejected + self.rejected_locally, f"of {self.rows} balances"
        unknown = f"{self.unknown} {of} are unknown and go out again"
        if refused > max_rejected:
            early = f" ({self.rejected_locally} before sending)" if self.rejected_locally else ""
            return RecordsRejected(
                f"{self._head}: {refused} {of} were rejected{early}{f'; {unknown}' if self.unknown else ''}",
                why=self._reasons(),
                do="Correct the mapping, ids or limits in the accounts file, or ignore these assets; run the day again",
            )
        if self.unknown:
            return OutcomeUnknown(f"{self._head}: {unknown}", why=self.doubt, do=f"If it stays so: {self._resolve}")
        if self.seen and on_unconfirmed == "fail":
            return Unconfirmed(
                f"{self._head}: {self.seen} {of} were seen and not confirmed",
                why="Their numbers are used up, but no response says that they were accepted",
                do=f"Ask {self.destination}, then: {self._resolve}",
            )
        return None

    def superseded_run(self, why: str = TAKEN_OVER, *, do: str = "", late: int = 0) -> SupersededRun:
        """The error with which a delivery stops because another one of the day has taken over.

        Args:
            why: What the other one is.
            do: What somebody has to do.
            late: How many balances are in doubt because of it.
        """
        if late:
            why = f"{why}; {late} balances may have arrived in the wrong order"
            do = f"Run {self.account} {self.day} again"
        return SupersededRun(f"{self._head}: this run sends nothing more", why=why, do=do, late=late)

    def remark(self, max_rejected: int) -> str:
        """What somebody should look at after a delivery that ended well; empty if nothing."""
        refused = self.rejected + self.rejected_locally
        found = []
        if refused:
            found.append(f"{refused} balances were rejected ({max_rejected} are tolerated): {self._reasons()}")
        if self.seen:
            found.append(f"{self.seen} balances were seen and not confirmed")
        return "; ".join(found)

    @property
    def _head(self) -> str:
        return f"{self.account} {self.day} to {self.destination}"

    @property
    def _resolve(self) -> str:
        return f"balance-bridge receipts resolve {self.account} {self.day} --destination {self.destination}"

    def _reject(self, row: Row, outcome: Outcome) -> None:
        local = row.action is Action.REJECT
        self.rejected_locally += local
        # By code alone: a destination's descriptions may differ from record to record.
        key = f"{LOCAL} {outcome.text}" if local else outcome.code
        reason = self.reasons.setdefault(key, Reason(outcome.code, outcome.text))
        reason.count += 1
        if outcome.together:
            reason.together += 1
        elif row.asset not in reason.assets and len(reason.assets) < _MAX_EXAMPLES:
            reason.assets.append(row.asset)

    def _reasons(self) -> str:
        ordered = sorted(self.reasons.values(), key=lambda reason: (-reason.count, reason.code))
        found = [f"{reason.code} x{reason.count} ({_whose(reason)}): {reason.text}" for reason in ordered[:_MAX_CODES]]
        if len(ordered) > _MAX_CODES:
            found.append(f"{len(ordered) - _MAX_CODES} more codes")
        return "; ".join(found)


def _whose(reason: Reason) -> str:
    together = [f"{reason.together} refused together with others"] if reason.together else []
    return "; ".join([*filter(None, [", ".join(reason.assets)]), *together])


def other_keys(plan: Plan | None, folded: Folded) -> tuple[int, str]:
    """How many balances are held under keys or settings that the accounts file no longer has, and one of them.

    Args:
        plan: The newest plan; None for a log without one.
        folded: The log.
    """
    found = no_longer_wanted(plan, folded)
    first = min(found, key=lambda attempt: (attempt.row.at_ms, attempt.row.asset), default=None)
    if first is None:
        return 0, ""
    return len(found), f"{first.row.asset} {rfc3339(first.row.at_ms)} as {first.row.key}"


def held_otherwise(count: int, example: str, plan: Plan | None = None) -> str:
    """What :func:`other_keys` found, in words; and if a plan keeps any of it, how to send it again."""
    text = (
        f"{count} balances are held under keys or settings that the accounts file no longer has, for example {example}"
    )
    if plan is not None and (kept := sum(row.text != "" and row.action is Action.KEEP for row in plan.rows)):
        again = 'to send these again with the new ones, trigger the day with {"redeliver": true}'
        text += f". {kept} of them are kept; {again}"
    return text


def late(folded: Folded) -> int:
    """How many balances are in doubt because another amount may have arrived after them."""
    return sum(each.outcome.code == LATE for each in outcomes(folded))
