"""How long the page "Balances" takes: 50 accounts by 90 days, on a folder and on an S3 server.

    python benchmarks/page.py [--accounts 50] [--days 90]

Prints seconds from the request to the whole page, as Airflow's API server serves it: the first time after it was
started (cold), and from then on (warm). The S3 server is moto's, on this machine, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ACCOUNT = """
  {name}:
    source: {{type: ascendex, conn_id: {name}, category: cash}}
    start_date: {start}
    destinations:
      elven:
        {{conn_id: elven_default, entity_account_id: {name}, source_id: source-{name}, timezone: Asia/Shanghai}}
      amlyze: {{conn_id: amlyze_default, requester: treasury, account_ext_id: "{name}-{{asset}}"}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--days", type=int, default=90)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            AIRFLOW_HOME=folder,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE=f"{folder}/accounts.yaml",
            AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
            PYTHONWARNINGS="ignore",
        )
        start = datetime.now(UTC).date() - timedelta(days=asked.days)
        names = [f"account_{number:03}" for number in range(asked.accounts)]
        text = "accounts:" + "".join(ACCOUNT.format(name=name, start=start) for name in names)
        Path(folder, "accounts.yaml").write_text(text)
        from airflow.utils.db import initdb

        from balance_bridge.store import Store

        initdb()
        measure("folder", Store(Path(folder, "balances")), names, asked.days)
        port = 20_000 + os.getpid() % 10_000
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            measure("S3 server", s3_store(port), names, asked.days)
        finally:
            server.terminate()
            server.wait()


def s3_store(port: int) -> Any:
    """A store on the S3 server, once it is up."""
    import s3fs

    from balance_bridge.store import Store

    fs = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}", key="not-real", secret="not-real")
    for _ in range(100):
        try:
            fs.mkdir("balances")
            break
        except OSError:
            time.sleep(0.2)
    return Store(SimpleNamespace(fs=fs, path="balances/store"))


def measure(what: str, store: Any, names: list[str], count: int) -> None:
    """Fill a store's index and time the page."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from balance_bridge.ui import access, app, overview

    fill(store, names, count)
    app.settings = SimpleNamespace(open_store=lambda: store)  # type: ignore[attr-defined]
    overview._KNOWN.clear()
    access.get_auth_manager = lambda: SimpleNamespace(
        get_authorized_dag_ids=lambda **_: {f"balances_{name}" for name in names}
    )
    app.app.dependency_overrides[get_user] = lambda: SimpleNamespace(get_name=lambda: "somebody")
    parent = FastAPI()
    parent.mount("/balances", app.app)
    client, path = TestClient(parent), f"/balances/?days={count}"
    client.get("/balances/static/page.css")
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        response = client.get(path)
        taken.append(time.perf_counter() - began)
        assert response.status_code == 200, response.text
        assert response.text.count('class="delivered"') >= len(names) * (count - 1)
    size = len(response.content) / 1024
    print(f"{what}: cold {taken[0]:.2f} s, warm {min(taken[1:]):.2f} s (of 5), {size:.0f} KiB before compression")


def fill(store: Any, names: list[str], count: int) -> None:
    """Write an index in which every day is delivered."""
    import msgspec

    from balance_bridge import facts, index
    from balance_bridge.store import to_json

    today = datetime.now(UTC).date()
    delivered = facts.Delivered(counts={"accepted": 40, "ignored": 2}, due=True, planned=True)
    day = facts.Day(
        True, proof="proven", records=500, assets=42, destinations={"elven": delivered, "amlyze": delivered}
    )
    days = [today - timedelta(days=ago) for ago in range(1, count + 1)]
    for name in names:
        for month in sorted({f"{each:%Y-%m}" for each in days}):
            own = {str(each): day for each in days if f"{each:%Y-%m}" == month}
            made = index.Month(index.VERSION, name, month, own)
            store.put(f"index/{month}/{name}/00000001.json", to_json(msgspec.to_builtins(made)))


if __name__ == "__main__":
    main()
