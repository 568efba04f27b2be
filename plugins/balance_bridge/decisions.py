"""What people decide about an account's day, on record: approvals of a break, and what they had run again.

::

    receipts/<account>/decisions/<day>/0001.json

Like all receipts these are written once, and stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import msgspec

from balance_bridge.clock import utc_text
from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store, to_json

VERSION = 1


class Act(StrEnum):
    """What somebody decided."""

    RERUN = "rerun"
    REFETCH = "refetch"
    DRY_RUN = "dry run"
    APPROVED = "approved"
    REFUSED = "refused"


_ABOUT_A_BREAK = (Act.APPROVED, Act.REFUSED)


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody decided about a day.

    Attributes:
        act: What they decided.
        by: Who; Airflow's user, or the name given on the command line.
        at: When (UTC, RFC 3339).
        reason: Why, in their words.
        proof: Of an approval: the digest of the proof that it is about; it says nothing about another one.
        run_id: The run that was started, or empty.
        version: Of this format.
    """

    act: Act
    by: str
    at: str
    reason: str = ""
    proof: str = ""
    run_id: str = ""
    version: int = VERSION

    def document(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {**found, "version": self.version}


def record(store: Store, account: str, day: date, decision: Decision) -> str:
    """Write a decision; the object's key.

    Raises:
        StoreUnwritable: If it cannot be written.
    """
    return store.append(_series(account, day), ".json", to_json(decision.document()))


def decide(store: Store, account: str, day: date, decision: Decision) -> Decision:
    """Write an approval or a refusal, unless the proof is approved already.

    Of two people who decide at once one is first. A refusal can be followed by an approval; an approval stands.

    Returns:
        What counts now: this decision, or the approval that was there before.

    Raises:
        StoreUnwritable: If it cannot be written.
        StoreDamaged: If a decision cannot be read.
    """
    while True:
        series = store.series(_series(account, day), ".json")
        known = about(store, account, day, decision.proof)
        if known is not None and known.act in (Act.APPROVED, decision.act):
            return known
        if store.put(f"{_series(account, day)}/{len(series) + 1:04d}.json", to_json(decision.document())):
            return decision


def read(store: Store, account: str, day: date) -> list[Decision]:
    """All decisions about a day, oldest first.

    Raises:
        StoreDamaged: If one cannot be read.
    """
    return [_decode(store, key) for key in store.series(_series(account, day), ".json")]


def digest(proof: Mapping[str, Any]) -> str:
    """The digest of a proof (a reconciliation's document), to which a decision about a break is bound."""
    text = json.dumps(proof, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def about(store: Store, account: str, day: date, proof: str) -> Decision | None:
    """What was last decided about a break: an approval or a refusal of this very proof, or None.

    Args:
        store: The store.
        account: The account's name.
        day: The UTC day.
        proof: The proof's digest.

    Raises:
        StoreDamaged: If a decision cannot be read.
    """
    found = [each for each in read(store, account, day) if each.proof == proof and each.act in _ABOUT_A_BREAK]
    return found[-1] if found else None


def newest_report(store: Store, account: str, day: date) -> dict[str, Any] | None:
    """A day's newest reconciliation; None if it was not run yet.

    Raises:
        StoreDamaged: If it cannot be read.
    """
    key = store.newest(f"reconciliation/{account}/{day}", ".json")
    found: dict[str, Any] | None = None if key is None else store.read_json(key)
    return found


def replace(decision: Decision, **changes: Any) -> Decision:
    """A decision with other values."""
    return msgspec.structs.replace(decision, **changes)


def now() -> str:
    """The present instant as decisions have it."""
    return utc_text(datetime.now(UTC).timestamp())


def _series(account: str, day: date) -> str:
    return f"receipts/{account}/decisions/{day}"


def _decode(store: Store, key: str) -> Decision:
    document = store.read_json(key)
    try:
        decision = msgspec.convert(document, Decision)
    except msgspec.ValidationError as error:
        raise StoreDamaged(f"{store.describe(key)} cannot be read as a decision", why=str(error)) from error
    if decision.version != VERSION:
        raise StoreDamaged(f"{store.describe(key)} is of version {decision.version}; this release reads {VERSION}")
    return decision
