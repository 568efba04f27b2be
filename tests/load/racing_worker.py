"""A process that delivers to a sandbox at the same moment as another one; started by ``test_load_processes``.

Usage: racing_worker.py, with one line of JSON on standard input that says where to, and one for each round; for each
round it prints one line: how the delivery ended.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import delivery_kit as kit
from balance_bridge.clock import Clock
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.load.destination import Balance
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
    return [kit.balance(f"A{index}", amount) for index in range(9)]


def race(asked: dict[str, Any], store: Store, turn: dict[str, Any]) -> dict[str, Any]:
    destination = kit.amlyze(Transport(), url=asked["url"], secret=asked["token"], max_rows=3)
    options = {"generation": turn["generation"], "run_id": asked["name"], "clock": CLOCK}
    day, namespace = date.fromisoformat(turn["day"]), f"bb{turn['day'].replace('-', '')}"
    time.sleep(max(0.0, turn["at"] - time.time()))
    try:
        summary = kit.run(destination, store, balances(turn["amount"]), day=day, namespace=namespace, **options)
        return {"ended": "well", **summary.as_dict()}
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
