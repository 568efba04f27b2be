"""``up`` as a user runs it: what it starts can be reached, and what it writes can be read, by that user only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
import requests

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]

LISTENING = "0A"


def family(pid: int) -> set[int]:
    """A process and all that it has started, directly or not."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def address(text: str) -> IPv4Address | IPv6Address:
    """An address as /proc/net writes it: words of 32 bits in the machine's own byte order."""
    words = [text[start : start + 8] for start in range(0, len(text), 8)]
    return ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))


def listens(pids: set[int]) -> dict[str, IPv4Address | IPv6Address]:
    """Where these processes listen, by socket."""
    inodes: dict[str, str] = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes[target.removeprefix("socket:[").removesuffix("]")] = f"process {pid}"
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            place, port = fields[1].split(":")
            if fields[3] == LISTENING and fields[9] in inodes:
                found[f"{inodes[fields[9]]}, port {int(port, 16)}"] = address(place)
    return found


def open_to_others(folder: Path) -> dict[str, str]:
    """What in a folder others than its owner can read or write."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        # Links have no permissions of their own; sockets and files that come and go are not told.
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not path.is_symlink() and mode & 0o077:
            found[str(path.relative_to(folder))] = oct(mode & 0o777)
    return found


def delivered(home: Path) -> bool:
    """Whether a day has come to its end, so that every part has had something to do."""
    return any((home / "airflow" / "balances").glob("balances/*/*/*/*.parquet"))


def log_of_the_first_task(ui: str) -> str:
    """What Airflow shows of the log of a task that has ended."""
    with requests.Session() as session:
        session.trust_env = False
        token = session.get(f"{ui}/auth/token", timeout=60).json()["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"
        runs = f"{ui}/api/v2/dags/balances_main_cash/dagRuns"
        first = session.get(runs, params={"order_by": "logical_date"}, timeout=60).json()["dag_runs"][0]["dag_run_id"]
        return session.get(f"{runs}/{first}/taskInstances/day/logs/1", timeout=60).text


# Half a minute: Airflow is started with all its parts, and works for a while.
def test_what_up_starts_and_writes_is_its_users_alone(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    command = [str(Path(sys.executable).parent / "balance-bridge"), "up", "--home", str(home)]
    seen: dict[str, IPv4Address | IPv6Address] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, umask=0
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl-C stops everything."):
                    break
            end = time.monotonic() + 120
            while not delivered(home) and process.poll() is None:
                assert time.monotonic() < end, "nothing was worked out"
                # Also what listens for a moment only.
                seen |= listens(family(process.pid))
                time.sleep(0.5)
            seen |= listens(family(process.pid))
            ui = next(line.split()[2] for line in said if line.startswith("Airflow's UI:"))
            log = log_of_the_first_task(ui)
        finally:
            # It ends its parts itself, which are sessions of their own.
            process.send_signal(signal.SIGINT)
            try:
                said += process.communicate(timeout=60)[0].splitlines(keepends=True)
            finally:
                process.kill()
    assert process.returncode == 0, "".join(said)
    assert len(seen) >= 2, "Airflow's API and the sandbox"
    assert {where: str(at) for where, at in seen.items() if not at.is_loopback} == {}
    assert open_to_others(home) == {}
    assert "main_cash: this run delivers" in log, "logs are shown without a log server"
