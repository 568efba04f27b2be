"""A process that delivers one day's balances, as a task does; started, watched and killed by the test beside it.

Usage: delivery_worker.py FILE, where FILE holds what is asked for as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import deliver
from balance_bridge.load.destination import Balance
from balance_bridge.load.elven import Elven
from balance_bridge.store import Store
from balance_bridge.transport import Transport


def destination(asked: dict[str, Any]) -> Elven | Amlyze:
    """The destination that is asked for, with small batches, so that there is much to be interrupted."""
    if asked["destination"] == "amlyze":
        return Amlyze(
            transport=Transport(),
            base_url=asked["url"],
            token=asked["token"],
            requester="treasury",
            account_ext_id="ASCENDEX-CASH-{asset}",
            max_rows=asked["max_rows"],
        )
    return Elven(
        transport=Transport(),
        base_url=asked["url"],
        api_key=asked["key"],
        api_secret=asked["secret"],
        entity_account_id=asked["entity"],
        source_id=asked["source"],
        timezone="Asia/Shanghai",
        max_rows=asked["max_rows"],
    )


def main(file: str) -> None:
    asked = json.loads(Path(file).read_text())
    rows = [Balance(asset, at_ms, Decimal(text), ("changes",)) for asset, at_ms, text in asked["balances"]]
    summary = deliver(
        destination=destination(asked),
        store=Store(Path(asked["store"])),
        account="main_cash",
        day=date.fromisoformat(asked["day"]),
        namespace="bb",
        balances=rows,
        run_id="the run",
    )
    print(json.dumps(summary.as_dict()), flush=True)


main(sys.argv[1])
