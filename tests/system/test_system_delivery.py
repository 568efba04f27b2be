"""Delivery by real processes over real sockets to the sandbox, killed again and again and started again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox
from balance_bridge.sandbox.world import midnight_ms
from balance_bridge.store import Store

pytestmark = [pytest.mark.system, pytest.mark.slow]

WORKER = Path(__file__).with_name("delivery_worker.py")
# The worker imports what the tests share.
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
DAY = date(2026, 11, 20)
BALANCES = 2500
KILLS = int(os.environ.get("KILLS", "5"))
BATCH = 5
ASSETS = ("BTC", "ETH", "USDT", "XRP", "SOL")


def balances(chance: random.Random) -> list[tuple[str, int, str]]:
    """One balance of an asset in each of many seconds of the day: asset, instant, digits."""
    instants = [midnight_ms(DAY) + 1000 * second for second in range(1, BALANCES // len(ASSETS) + 1)]
    return [
        (asset, at_ms, f"{chance.randint(1, 10**9)}.{chance.randint(1, 9)}") for at_ms in instants for asset in ASSETS
    ]


def order(folder: Path, sandbox: Sandbox, destination: str, rows: list[tuple[str, int, str]]) -> Path:
    """What a worker is asked for, as a file."""
    ((key, secret),) = CREDENTIALS.elven.items()
    asked = {
        "url": sandbox.url,
        "destination": destination,
        "token": CREDENTIALS.amlyze,
        "key": key,
        "secret": secret,
        "entity": CREDENTIALS.entity_accounts["main_cash"],
        "source": CREDENTIALS.sources["main_cash"],
        "day": DAY.isoformat(),
        "store": str(folder / "store"),
        "max_rows": BATCH,
        "balances": rows,
    }
    path = folder / f"{destination}.json"
    path.write_text(json.dumps(asked))
    return path


def start(path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)


def delivered(path: Path) -> dict[str, Any]:
    """Run a worker to its end; what it told."""
    process = start(path)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out)
    return told


def killed_after(path: Path, sandbox: Sandbox, destination: str, more: int, pause_s: float) -> bool:
    """Start a worker and kill it a moment after so many balances more were taken; whether it was still alive."""
    before, process = len(books(sandbox, destination)), start(path)
    end = time.monotonic() + 120
    try:
        while process.poll() is None and len(books(sandbox, destination)) < before + more:
            assert time.monotonic() < end, "it neither delivers nor ends"
            time.sleep(0.002)
        time.sleep(pause_s)
        return process.poll() is None
    finally:
        process.kill()
        process.communicate(timeout=30)


def books(sandbox: Sandbox, destination: str) -> list[tuple[str, ...]]:
    """What the destination took, in order: key, digits, and the communication number where there is one."""
    if destination == "elven":
        return [(*kept.key, kept.balance.text) for kept in sandbox.elven.delivered]
    taken = sandbox.amlyze.delivered
    return [(kept.account_ext_id, kept.balance_at, kept.balance.text, kept.number) for kept in taken]


# Half a minute for each: processes are started and killed, and each waits until the killed one's request must be over.
@pytest.mark.parametrize("destination", ["amlyze", "elven"])
def test_killed_again_and_again_the_books_are_those_of_an_undisturbed_run(
    destination: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    rows = balances(chance)
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    with Sandbox() as sandbox:
        clean.mkdir()
        delivered(order(clean, sandbox, destination, rows))
        undisturbed = books(sandbox, destination)
    with Sandbox() as sandbox:
        killed.mkdir()
        path = order(killed, sandbox, destination, rows)
        taken = []
        for _ in range(KILLS):
            # So that each gets a little further; a request takes some ten milliseconds, and its receipts as many.
            more = chance.randint(0, BALANCES // KILLS)
            assert killed_after(path, sandbox, destination, more, chance.uniform(0, 0.04)), f"seed {seed}: ended"
            taken.append(len(books(sandbox, destination)))
        with capsys.disabled():
            print(f"\n{destination}, seed {seed}: killed with so many taken: {taken}")
        told = delivered(path)
        ended = books(sandbox, destination)
        states = {kept.state for kept in sandbox.elven.delivered}
        oddities = sandbox.elven.oddities
    where = f"seed {seed}"
    assert told["rows"] == told["accepted_now"] + told["accepted_before"] + told["seen"] == BALANCES, where
    if destination == "amlyze":
        # Every record once, under the same number. (Seen: taken before a kill that left no receipt of it.)
        assert sorted(ended) == sorted(undisturbed), where
    else:
        # A batch whose answer nobody lived to write down is there once more, with the very same rows.
        assert set(ended) == set(undisturbed), where
        assert not oddities
        assert len(ended) - len(undisturbed) <= BATCH * KILLS, where
        assert states <= {"new", "repeated"}, where
    found = list(outcomes(fold(DayLog(Store(killed / "store"), "main_cash", DAY, destination).read())))
    assert len(found) == len({each.row.balance for each in found}) == BALANCES, where
    assert {str(each.outcome.status) for each in found} <= {"accepted", "seen"}, where
