"""An accounts file of one account, and how it may change between two runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from balance_bridge.accounts import AmlyzeDestination, ElvenDestination

_IGNORED = {"SPAM": "ignore"}
_CROSSED = {"BTC": "CASH-USDT", "USDT": "CASH-BTC", "BTMX-S": "CASH-BTMX-S", "ODD": "CASH-ODD"}


@dataclass(frozen=True)
class Settings:
    """What of the accounts file may change.

    Attributes:
        zone: Elven's.
        source: Elven's.
        swapped: Whether two assets have each other's name at Elven.
        named: Whether BTC goes to Elven by its symbol, and not by its id.
        prefix: Of the account ids at Amlyze; empty for a mapping by which two assets have each other's account.
        balance_type: At Amlyze.
        business_unit: At Amlyze.
        address: What the hosts of both destinations end in.
    """

    zone: str = "Asia/Shanghai"
    source: str = "FIRST"
    swapped: bool = False
    named: bool = False
    prefix: str = "CASH"
    balance_type: str | None = None
    business_unit: str | None = None
    address: str = "example"

    def elven(self) -> ElvenDestination:
        """Elven's part of the accounts file."""
        names = ("USDT", "BTMX") if self.swapped else ("BTMX", "USDT")
        return ElvenDestination(
            name="elven",
            conn_id="elven_default",
            on_unconfirmed="fail",
            entity_account_id="ENTITY",
            source_id=self.source,
            timezone=self.zone,
            assets={
                **_IGNORED,
                "BTMX-S": {"symbol": names[0]},
                "USDT": {"symbol": names[1]},
                "BTC": {"symbol": "BTC"} if self.named else {"asset_id": "BTC"},
            },
            max_rows=4,
        )

    def amlyze(self) -> AmlyzeDestination:
        """Amlyze's part of the accounts file."""
        return AmlyzeDestination(
            name="amlyze",
            conn_id="amlyze_default",
            on_unconfirmed="fail",
            requester="treasury",
            account_ext_id=f"{self.prefix}-{{asset}}" if self.prefix else _CROSSED,
            assets=_IGNORED,
            balance_type=self.balance_type,
            business_unit=self.business_unit,
            max_rows=4,
        )

    def elven_identity(self, asset: str) -> str:
        """What Elven calls an asset."""
        if asset == "BTC":
            return "symbol:BTC" if self.named else "assetID:BTC"
        names = ("USDT", "BTMX") if self.swapped else ("BTMX", "USDT")
        return f"symbol:{dict(zip(('BTMX-S', 'USDT'), names, strict=True)).get(asset, asset)}"

    def amlyze_account(self, asset: str) -> str:
        """An asset's account at Amlyze."""
        return f"{self.prefix}-{asset}" if self.prefix else _CROSSED[asset]


#: What somebody may change, by name. Zones that are twelve hours apart: then texts of one are texts of the other.
CHANGES: dict[str, Callable[[Settings], Settings]] = {
    "zone": lambda old: replace(old, zone="America/Puerto_Rico" if old.zone == "Asia/Shanghai" else "Asia/Shanghai"),
    "source": lambda old: replace(old, source="SECOND" if old.source == "FIRST" else "FIRST"),
    "swapped": lambda old: replace(old, swapped=not old.swapped),
    "named": lambda old: replace(old, named=not old.named),
    "prefix": lambda old: replace(old, prefix={"CASH": "SPOT", "SPOT": "", "": "CASH"}[old.prefix]),
    "balance_type": lambda old: replace(old, balance_type=None if old.balance_type else "closing"),
    "business_unit": lambda old: replace(old, business_unit=None if old.business_unit else "desk"),
}
#: Those that keys at Elven are made with: a run without ``redeliver`` refuses.
KEY_CHANGES = frozenset({"zone", "source"})
