"""The demo as a user runs it: a real Airflow in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [str(Path(sys.executable).parent / "balance-bridge"), "demo", "--home"]

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]


def left_behind(home: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"AIRFLOW_HOME={home}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


# A minute: a real scheduler catches up six runs of seven tasks each.
def test_the_demo_delivers_every_balance_and_leaves_nothing_running(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    done = subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every balance arrived exactly, once." in done.stdout
    assert "NO" not in done.stdout.split("equal", 1)[1].split("Stopping")[0]
    assert left_behind(home) == []
    assert list((home / "airflow" / "balances" / "receipts").rglob("plan-*.jsonl.gz"))


# Half a minute: the demo is interrupted once Airflow runs, and ends it in order.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "demo"
    with subprocess.Popen(
        [*COMMAND, str(home)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Starting Airflow"):
                break
        time.sleep(3)
        assert left_behind(home)
        os.kill(process.pid, number)
        try:
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
    assert "nothing is left running" in rest
    assert left_behind(home) == []


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "choose another folder with --home" in done.stdout
    assert (tmp_path / "precious.txt").read_text() == "mine"
