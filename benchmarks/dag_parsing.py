"""What parsing the DAG file adds to the bare import of ``airflow.sdk``, which every DAG file pays.

Each figure is the median of several fresh processes, in CPU time, which a busy machine changes least; the wall time
stands beside it: python benchmarks/dag_parsing.py [--runs 7]
Targets: less than 50 ms with the two accounts of the example, 250 ms with 100 accounts, 1 s with 500.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DAG_FILE = PROJECT / "dags" / "account_balances.py"
EXAMPLE = PROJECT / "include" / "accounts.example.yaml"

PROBE = """
import json, runpy, sys, time
now = lambda: (time.process_time(), time.perf_counter())
t0 = now()
import airflow.sdk
from airflow.sdk import dag
t1 = now()
made = runpy.run_path(sys.argv[1])
t2 = now()
heavy = [name for name in ("pandas", "pyarrow", "requests", "numpy") if name in sys.modules]
figures = {"sdk_s": t1[0] - t0[0], "added_s": t2[0] - t1[0], "wall_s": t2[1] - t1[1]}
print(json.dumps({**figures, "dags": len(made["DAGS"]), "heavy": heavy}))
"""

ACCOUNT = """
  account_{n:03d}:
    source: {{type: ascendex, conn_id: ascendex_{n:03d}, category: cash}}
    start_date: 2026-11-01
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: entity{n:03d}
        source_id: source{n:03d}
        timezone: Asia/Shanghai
        points: [close, {{every: 1h}}]
        assets: {{BTMX-S: {{symbol: BTMX}}, SPAM: ignore}}
      amlyze: {{conn_id: amlyze_default, requester: treasury, account_ext_id: "A{n:03d}-{{asset}}"}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes per figure (7)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        cases = {"the example's accounts": (EXAMPLE, 0.050)}
        for count, target_s in ((100, 0.250), (500, 1.0)):
            file = Path(folder) / f"{count}.yaml"
            file.write_text("accounts:" + "".join(ACCOUNT.format(n=n) for n in range(count)))
            cases[f"{count} accounts"] = (file, target_s)
        for name, (file, target_s) in cases.items():
            found = [probe(file, Path(folder)) for _ in range(runs + 1)][1:]  # the first one warms the caches
            sdk_s = statistics.median(each["sdk_s"] for each in found)
            added_s = statistics.median(each["added_s"] for each in found)
            wall_s = statistics.median(each["wall_s"] for each in found)
            print(
                f"{name}: {found[0]['dags']} DAGs; airflow.sdk {sdk_s * 1000:.0f} ms, the DAG file adds "
                f"{added_s * 1000:.0f} ms ({added_s / sdk_s:.2f} of it; {wall_s * 1000:.0f} ms wall; "
                f"target {target_s * 1000:.0f} ms: {'met' if added_s < target_s else 'MISSED'}); "
                f"heavy modules: {', '.join(found[0]['heavy']) or 'none'}"
            )
    return 0


def probe(accounts: Path, home: Path) -> dict:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(accounts),
        "PYTHONWARNINGS": "ignore",
    }
    # As in an installation: compiled once, not at every start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROBE, str(DAG_FILE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
