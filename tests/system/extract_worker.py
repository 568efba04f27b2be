"""A process that extracts days of one account, as a task does; started, watched and killed by the tests beside it.

Usage: extract_worker.py FILE, where FILE holds what is asked for as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

from balance_bridge import daily
from balance_bridge.extract import ascendex
from balance_bridge.extract.budget import Budget, Limits, budget_key
from balance_bridge.store import Store
from balance_bridge.transport import Credentials, Transport


def main(file: str) -> None:
    asked = json.loads(Path(file).read_text())
    # Small pages, so that a day takes many requests.
    ascendex.PAGE_LIMIT = ascendex.AscendexAccount.page_limit = asked["page_limit"]
    budget = Budget(asked["budget"], budget_key(asked["key"]), limits=Limits(**asked["limits"]))
    credentials = Credentials(asked["url"], asked["key"], asked["secret"])
    client = ascendex.AscendexClient(Transport(), credentials, budget=budget)
    source = ascendex.AscendexAccount(client, ascendex.Category(asked["category"]), retention_days=7)
    for day in map(date.fromisoformat, asked["days"]):
        job = daily.Job(source, Store(Path(asked["store"])), asked["account"], day, "the run")
        for which in ("opening", "closing"):
            daily.fetch_snapshot(job, which)  # type: ignore[arg-type]
        print(json.dumps(daily.fetch_history(job, {})), flush=True)


main(sys.argv[1])
