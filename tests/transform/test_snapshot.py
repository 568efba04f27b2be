from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest

from balance_bridge.errors import InvalidResponse
from balance_bridge.transform.snapshot import Snapshot, check_order


def loaded_by(module: str, *suspects: str) -> set[str]:
    code = f"import sys, {module}; print(*({set(suspects)!r} & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_snapshot_can_be_passed_on_without_pandas_or_arrow() -> None:
    assert loaded_by("balance_bridge.transform.snapshot", "pandas", "numpy", "pyarrow") == set()


@pytest.mark.slow  # imports pandas in a fresh interpreter
def test_the_transformation_knows_nothing_of_airflow_or_http() -> None:
    modules = (
        "balance_bridge.transform.balances, balance_bridge.transform.ledger, balance_bridge.transform.reconciliation"
    )
    assert loaded_by(modules, "airflow", "requests", "urllib3", "balance_bridge.store") == set()


def test_snapshots_follow_each_other_by_time_and_do_not_fall_back_by_sn() -> None:
    first = Snapshot(5, 100, {"A": Decimal(1)})
    check_order(first, Snapshot(5, 101, {}))
    check_order(first, Snapshot(6, 101, {}))
    for sn, at_ms in [(4, 101), (5, 100), (6, 99)]:
        with pytest.raises(InvalidResponse, match=r"Check the days|a new sequence"):
            check_order(first, Snapshot(sn, at_ms, {}))
