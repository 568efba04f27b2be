"""A process that delivers one day's balances, as a task does; started, watched and killed by the test beside it.

Usage: delivery_worker.py FILE, where FILE holds what is asked for as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import delivery_kit as kit
from balance_bridge.clock import SYSTEM_CLOCK
from balance_bridge.load.destination import Destination
from balance_bridge.store import Store
from balance_bridge.transport import Transport


def destination(asked: dict[str, Any]) -> Destination:
    """The destination that is asked for, with small batches, so that there is much to be interrupted."""
    # A short timeout: whoever comes after a killed process waits until its request must be over.
    options = {"url": asked["url"], "max_rows": asked["max_rows"], "timeout_s": 1}
    if asked["destination"] == "amlyze":
        return kit.amlyze(Transport(), secret=asked["token"], account_ext_id="ASCENDEX-CASH-{asset}", **options)
    ids = {"entity_account_id": asked["entity"], "source_id": asked["source"]}
    return kit.elven(Transport(), key=asked["key"], secret=asked["secret"], **ids, **options)


def main(file: str) -> None:
    asked = json.loads(Path(file).read_text())
    due = [kit.balance(asset, text, at_ms, "changes") for asset, at_ms, text in asked["balances"]]
    options = {"day": date.fromisoformat(asked["day"]), "run_id": "the run", "clock": SYSTEM_CLOCK}
    print(json.dumps(kit.run(destination(asked), Store(Path(asked["store"])), due, **options).as_dict()), flush=True)


main(sys.argv[1])
