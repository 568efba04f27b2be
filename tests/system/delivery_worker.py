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

from balance_bridge.accounts import AmlyzeDestination, ElvenDestination
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import Delivery, deliver
from balance_bridge.load.destination import Balance, Credentials
from balance_bridge.load.elven import Elven
from balance_bridge.store import Store
from balance_bridge.transport import Transport


def destination(asked: dict[str, Any]) -> Elven | Amlyze:
    """The destination that is asked for, with small batches, so that there is much to be interrupted."""
    # A short timeout: whoever comes after a killed process waits until its request must be over.
    named = {"name": asked["destination"], "conn_id": "any", "max_rows": asked["max_rows"], "timeout_s": 1}
    if asked["destination"] == "amlyze":
        amlyze = AmlyzeDestination(**named, requester="treasury", account_ext_id="ASCENDEX-CASH-{asset}")
        return Amlyze(amlyze, Credentials(asked["url"], "", asked["token"]), Transport())
    elven = ElvenDestination(
        **named, entity_account_id=asked["entity"], source_id=asked["source"], timezone="Asia/Shanghai"
    )
    return Elven(elven, Credentials(asked["url"], asked["key"], asked["secret"]), Transport())


def main(file: str) -> None:
    asked = json.loads(Path(file).read_text())
    rows = [Balance(asset, at_ms, Decimal(text), ("changes",)) for asset, at_ms, text in asked["balances"]]
    delivery = Delivery(
        destination=destination(asked),
        store=Store(Path(asked["store"])),
        account="main_cash",
        day=date.fromisoformat(asked["day"]),
        namespace="bb",
        generation="balances/0001.parquet",
        run_id="the run",
    )
    print(json.dumps(deliver(delivery, rows).as_dict()), flush=True)


main(sys.argv[1])
