from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


# Both start processes of their own, which import polars and pandas.
@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["transform.py", "--records", "1200", "--runs", "1"],
        ["load.py", "--rows", "100", "--repeat", "1", "--destination", "webhook"],
    ],
    ids=lambda command: str(command[0]),
)
def test_a_benchmark_runs_and_finds_both_programs_right(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / command[0], *command[1:]], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
