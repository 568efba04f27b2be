"""What moved on a day: per asset the opening balance, what came in, what went out, fees, and the closing balance."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pandas as pd
import pyarrow as pa

from balance_bridge.transform.ledger import WIDE

COLUMNS = ("opening", "in", "out", "fees", "closing", "drift")


def movements(opening: Mapping[str, Decimal], closing: Mapping[str, Decimal], ledger: pd.DataFrame) -> pd.DataFrame:
    """Sum up a day by asset.

    Args:
        opening: The balances at the start, per asset; one that is absent is zero.
        closing: The balances at the end.
        ledger: As ``build_ledger`` makes it.

    Returns:
        By asset, sorted: ``opening``, ``in`` (what was received, 0 or more), ``out`` (what was given, 0 or less),
        ``fees`` (0 or less; a rebate is above 0), ``closing``, and ``drift``: closing - (opening + in + out + fees),
        which is 0 where the day adds up. All are ``decimal256(60, 18)``, in units of the asset.
    """
    wide = ledger[["asset"]].assign(fees=ledger["fee"].astype(WIDE))
    moved = ledger["delta"].astype(WIDE) - wide["fees"]
    nothing = pd.Series(Decimal(0), index=moved.index, dtype=WIDE)
    wide = wide.assign(**{"in": moved.where(moved > 0, nothing), "out": moved.where(moved < 0, nothing)})
    sums = wide.groupby("asset")[["in", "out", "fees"]].sum()
    held = {asset for each in (opening, closing) for asset, balance in each.items() if balance}
    assets = pd.Index(sorted(held.union(sums.index)), name="asset", dtype=pd.ArrowDtype(pa.string()))
    nought = pd.Series(Decimal(0), index=assets, dtype=WIDE)
    columns = {name: sums[name].astype(WIDE).reindex(assets).fillna(nought) for name in sums}
    for name, balances in (("opening", opening), ("closing", closing)):
        columns[name] = pd.Series([balances.get(asset, Decimal(0)) for asset in assets], index=assets, dtype=WIDE)
    found = pd.DataFrame(columns, index=assets)
    found["drift"] = found["closing"] - found["opening"] - found["in"] - found["out"] - found["fees"]
    ordered: pd.DataFrame = found[list(COLUMNS)]
    return ordered
