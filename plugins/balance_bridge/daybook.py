"""All that the store has of an account's day, put together for people: movements, breaks, deliveries.

The page and ``explain`` show this; nothing is computed here that a delivery depends on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from balance_bridge.load.audit import Entry, entries
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog, destinations_with_logs
from balance_bridge.store import Store

if TYPE_CHECKING:
    import pandas as pd

_AROUND = 3


@dataclass(frozen=True)
class Break:
    """A place where the proof fails.

    Attributes:
        kind: ``chain`` or ``conservation``.
        asset: The asset.
        amount: What is missing.
        last_good_sn: Up to here everything holds.
        first_bad_sn: Here it no longer does.
        records: The asset's records around it, as rows of the ledger.
    """

    kind: str
    asset: str
    amount: Decimal
    last_good_sn: int
    first_bad_sn: int
    records: Sequence[dict[str, Any]] = ()

    @property
    def first_bad_at(self) -> datetime | None:
        """When the first bad record happened; None where it is the closing snapshot."""
        return next((row["at"] for row in self.records if row["sn"] == self.first_bad_sn), None)


@dataclass(frozen=True)
class Reason:
    """Why balances ended as they did, where that needs a reason.

    Attributes:
        outcome: How.
        code: The destination's code, or one of ours.
        text: The reason in words.
        count: Balances.
        assets: Theirs, each once.
    """

    outcome: str
    code: str
    text: str
    count: int
    assets: Sequence[str]


def reasons(attempts: Iterable[Entry]) -> list[Reason]:
    """Why balances were not simply accepted, the most frequent reason first; earlier attempts do not count."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for each in attempts:
        if each.current and (each.code or each.text):
            found.setdefault((each.outcome, each.code, each.text), []).append(each.asset)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [Reason(*why, len(assets), list(dict.fromkeys(assets))) for why, assets in ordered]


@dataclass(frozen=True)
class Daybook:
    """An account's day, as the store has it.

    Attributes:
        store: The store.
        account: The account's name.
        day: The UTC day.
        report: The newest reconciliation; empty if the day was not run yet.
    """

    store: Store
    account: str
    day: date
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, account: str, day: date) -> Daybook:
        """Read a day's report; all else is read when it is asked for.

        Raises:
            StoreDamaged: If the report cannot be read.
        """
        key = store.newest(f"reconciliation/{account}/{day}", ".json")
        return cls(store, account, day, store.read_json(key) if key else {})

    @cached_property
    def ledger(self) -> pd.DataFrame | None:
        """The day's ledger, or None if the day was not run yet.

        Raises:
            StoreDamaged: If it cannot be read.
        """
        from balance_bridge.transform import ledger

        return ledger.from_parquet(self.store.read(self.report["ledger"])) if self.report else None

    @cached_property
    def movements(self) -> pd.DataFrame | None:
        """Per asset opening, in, out, fees, closing and drift; None if the day was not run yet."""
        from balance_bridge.transform.movements import movements

        if self.ledger is None:
            return None
        opening, closing = (
            {asset: Decimal(text) for asset, text in self.report[end]["balances"].items()}
            for end in ("opening", "closing")
        )
        return movements(opening, closing, self.ledger)

    @cached_property
    def breaks(self) -> list[Break]:
        """The places where the proof fails, with the records around them."""
        return [
            Break(
                **{name: each[name] for name in ("kind", "asset", "last_good_sn", "first_bad_sn")},
                amount=Decimal(each["amount"]),
                records=self._around(each["asset"], each["last_good_sn"], each["first_bad_sn"]),
            )
            for each in self.report.get("breaks", [])
        ]

    @cached_property
    def deliveries(self) -> dict[str, list[Entry]]:
        """Every attempt to deliver the day's balances, by destination.

        Raises:
            StoreDamaged: If a log cannot be read.
        """
        return {name: self.delivery(name) for name in destinations_with_logs(self.store, self.account, self.day)}

    def delivery(self, name: str) -> list[Entry]:
        """Every attempt to deliver the day's balances to one destination.

        Raises:
            StoreDamaged: If its log cannot be read.
        """
        return list(entries(fold(DayLog(self.store, self.account, self.day, name).read()), name))

    def _around(self, asset: str, last_good: int, first_bad: int) -> list[dict[str, Any]]:
        if self.ledger is None:
            return []
        of_asset = self.ledger[self.ledger["asset"] == asset]
        before = of_asset[of_asset["sn"] <= last_good].tail(_AROUND)
        after = of_asset[of_asset["sn"] >= first_bad].head(_AROUND)
        return [{str(name): value for name, value in row.items()} for end in (before, after) for row in _rows(end)]


def _rows(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return frame.to_dict("records")
