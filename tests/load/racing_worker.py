"""A process that delivers to a sandbox at the word of the test beside it, at the same moment as another one.

Usage: racing_worker.py, with one line of JSON on standard input that says where to, and one for each round; for each
round it answers with one line: how the delivery ended.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from balance_bridge.accounts import AmlyzeDestination
from balance_bridge.clock import Clock
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import Delivery, deliver
from balance_bridge.load.destination import Balance, Credentials
from balance_bridge.store import Store
from balance_bridge.transport import Transport

# It looks more often than every two seconds, so that the test is over sooner.
CLOCK = Clock(wall=time.time, monotonic=time.monotonic, sleep=lambda seconds: time.sleep(min(seconds, 0.01)))


def open_store(where: dict[str, str]) -> Store:
    """A store in a folder, or in a bucket of an S3 server."""
    if "folder" in where:
        return Store(Path(where["folder"]))
    import s3fs

    fs = s3fs.S3FileSystem(
        key="testing",
        secret="testing",
        client_kwargs={"endpoint_url": where["endpoint"], "region_name": "eu-central-1"},
    )
    return Store(SimpleNamespace(fs=fs, path=where["bucket"]))


def balances(amount: str) -> list[Balance]:
    """What is delivered in each round: three requests of three."""
    return [Balance(f"A{index}", 1_795_219_200_000, Decimal(amount), ("close",)) for index in range(9)]


def race(asked: dict[str, Any], store: Store, turn: dict[str, Any]) -> dict[str, Any]:
    config = AmlyzeDestination(
        name="amlyze", conn_id="amlyze_default", requester="treasury", account_ext_id="CASH-{asset}", max_rows=3
    )
    delivery = Delivery(
        destination=Amlyze(config, Credentials(asked["url"], "", asked["token"]), Transport()),
        store=store,
        account="main_cash",
        day=date.fromisoformat(turn["day"]),
        namespace=f"bb{turn['day'].replace('-', '')}",
        generation=turn["generation"],
        run_id=asked["name"],
        clock=CLOCK,
    )
    time.sleep(max(0.0, turn["at"] - time.time()))
    try:
        return {"ended": "well", **deliver(delivery, balances(turn["amount"])).as_dict()}
    except BalanceBridgeError as error:
        return {"ended": type(error).__name__, "error": str(error)}


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    store = open_store(asked["store"])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(race(asked, store, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
