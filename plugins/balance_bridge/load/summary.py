"""How a delivery ended: counts for the log and the page, and the error that tells what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from balance_bridge.errors import BalanceBridgeError, OutcomeUnknown, Overtaken, RecordsRejected, Unconfirmed
from balance_bridge.load.batches import Row
from balance_bridge.load.destination import LOCAL, LocalRejection
from balance_bridge.load.outcomes import Outcome, Status
from balance_bridge.load.policy import Policy

_MAX_EXAMPLES = 5
_MAX_CODES = 10

_Error = TypeVar("_Error", bound=BalanceBridgeError)


@dataclass
class Reason:
    """Why balances were rejected.

    Attributes:
        code: The destination's code, or ``LOCAL``.
        text: The reason in words, of the first one.
        count: Balances.
        assets: Up to five assets as examples.
    """

    code: str
    text: str
    count: int = 0
    assets: list[str] = field(default_factory=list)


@dataclass
class DeliverySummary:
    """What a delivery did with each balance that it was given.

    ``rows = accepted_now + accepted_before + seen + rejected + rejected_locally + unknown + ignored + covered +
    pending``, always.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        dry_run: Whether nothing was sent on purpose.
        rows: Balances handed in.
        accepted_now: Accepted by this delivery.
        accepted_before: An acceptance was on a receipt before, or another live copy of this run brought it about.
        seen: Settled, but not confirmed: the destination knows the number (now or before).
        rejected: By the destination, in this delivery.
        rejected_locally: Not sendable.
        unknown: Sent, and what became of them is not known.
        ignored: Left out by the accounts file.
        covered: Another day's run holds the key with a balance that ranks higher.
        pending: To be sent, and not sent yet (all of a dry run).
        superseded: Of those that were sent (a dry run: are to be sent): with another amount than was accepted before.
        resent: Of those: under a number that may have been sent before.
        requests: Requests that were made, refused connections included.
        batches: Batches that are to be sent.
        divided: Requests that were refused as a whole and divided, to find the bad records.
        foreign: Results for numbers that were not asked about.
        preview: Of a dry run: where what would be sent is kept.
        reasons: Why balances were rejected, by the destination's code; checks of ours by ``LOCAL`` and text.
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
    covered: int = 0
    pending: int = 0
    superseded: int = 0
    resent: int = 0
    requests: int = 0
    batches: int = 0
    divided: int = 0
    foreign: int = 0
    preview: str = ""
    reasons: dict[str, Reason] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values that JSON can hold."""
        return asdict(self)

    def count_sent(self, rows: Iterable[Row], *, resend: bool) -> None:
        """Count rows that go out."""
        for row in rows:
            self.superseded += row.supersedes != ""
            self.resent += resend

    def count_divided(self, rows: Iterable[Row], *, resend: bool) -> None:
        """Take back what was counted of rows that go out again in parts."""
        self.divided += 1
        for row in rows:
            self.superseded -= row.supersedes != ""
            self.resent -= resend

    def count_local(self, rejections: Iterable[LocalRejection]) -> None:
        """Count what cannot be sent."""
        for rejection in rejections:
            self.rejected_locally += 1
            self._reason(f"{LOCAL} {rejection.text}", LOCAL, rejection.text, rejection.balance.asset)

    def count_outcome(self, row: Row, outcome: Outcome, *, by_another: bool) -> None:
        """Count how a row ended that was pending; ``by_another`` if another live copy sent it."""
        self.pending -= 1
        if outcome.status == Status.ACCEPTED:
            self.accepted_before += by_another
            self.accepted_now += not by_another
        elif outcome.status == Status.SEEN:
            self.seen += 1
        elif outcome.status == Status.REJECTED:
            self.rejected += 1
            # By code alone: descriptions may differ from record to record.
            self._reason(outcome.code, outcome.code, outcome.text, row.asset)
        else:
            self.unknown += 1

    def failure(self, policy: Policy) -> BalanceBridgeError | None:
        """The error with which the delivery ends, or None.

        Rejections come first, since they are final: if a passing error were raised beside them, Airflow would try
        again by itself, and what was rejected would go out once more without anybody having repeated the run.
        """
        head = self._head
        unknown = (
            f"what became of {self.unknown} of {self.rows} balances is unknown; "
            f"they go out again under the same numbers"
        )
        refused = self.rejected + self.rejected_locally
        if refused > policy.max_rejected:
            also = f" Besides, {unknown}." if self.unknown else ""
            early = f" ({self.rejected_locally} of them before anything was sent)" if self.rejected_locally else ""
            return RecordsRejected(
                f"{head}: {refused} of {self.rows} balances were rejected{early}: {self._reasons()}.{also} Correct the "
                f"asset mapping, the account ids or the limits in the accounts file, or set these assets to ignore; "
                f"then run the day again: what was rejected goes out under new numbers, what was accepted does not go "
                f"out again"
            )
        if self.unknown:
            return OutcomeUnknown(f"{head}: {unknown}")
        if self.seen and policy.on_unconfirmed == "fail":
            return Unconfirmed(
                f"{head}: {self.seen} of {self.rows} balances were seen and not confirmed: their numbers are used up, "
                f"but no answer says that they were taken. Ask {self.destination} about them, and write down what you "
                f"found out: balance-bridge receipts resolve {self.account} {self.day} --destination {self.destination}"
            )
        return None

    def overtaken(self, late: int = 0, days: Iterable[str] = ()) -> Overtaken:
        """The error with which a delivery stops because another one of the day has begun since.

        Args:
            late: How many of its balances may have arrived after another amount of them.
            days: The days that have the other amounts.
        """
        told = (
            f"{self._head}: another run of this day has begun since, with other balances, and delivers them; this one "
            f"stops"
        )
        if late:
            again = ", ".join(sorted({*days, self.day}))
            told += (
                f". {late} of its balances may have arrived after other amounts of them. Run {again} once more: "
                f"trigger it anew, or clear it from its task reconcile on"
            )
        return Overtaken(told, late=late)

    def stale(self) -> Overtaken:
        """The error with which a delivery stops because the day was worked out anew since."""
        return Overtaken(
            f"{self._head}: the day was worked out anew since, and what this task was handed is not delivered any "
            f"more. If no other run delivers the new balances, trigger the day, or clear it from its task reconcile on"
        )

    def remark(self, policy: Policy) -> str:
        """What a delivery that ended well leaves to be looked at; empty if nothing."""
        refused = self.rejected + self.rejected_locally
        told = []
        if refused:
            told.append(f"{refused} balances were rejected ({policy.max_rejected} are let pass): {self._reasons()}")
        if self.seen:
            told.append(f"{self.seen} balances were seen and not confirmed")
        return "; ".join(told)

    def attach(self, error: _Error) -> _Error:
        """Put this summary on an error, as its attribute ``summary``."""
        vars(error)["summary"] = self
        return error

    @property
    def _head(self) -> str:
        return f"{self.account} {self.day} to {self.destination}"

    def _reason(self, key: str, code: str, text: str, asset: str) -> None:
        reason = self.reasons.setdefault(key, Reason(code, text))
        reason.count += 1
        if asset not in reason.assets and len(reason.assets) < _MAX_EXAMPLES:
            reason.assets.append(asset)

    def _reasons(self) -> str:
        ordered = sorted(self.reasons.values(), key=lambda reason: (-reason.count, reason.code))
        told = [
            f"{reason.code} x{reason.count} ({', '.join(reason.assets)}): {reason.text}"
            for reason in ordered[:_MAX_CODES]
        ]
        if len(ordered) > _MAX_CODES:
            told.append(f"{len(ordered) - _MAX_CODES} more codes")
        return "; ".join(told)
