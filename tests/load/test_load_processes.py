"""Two real processes that plan and send at the same moment, on a folder and on an S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from racing_worker import balances, open_store

from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox

WORKER = Path(__file__).with_name("racing_worker.py")
# The worker imports what the tests share.
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
FIRST, ROUNDS = date(2026, 11, 1), 4


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        where = {"endpoint": f"http://{host}:{port}", "bucket": "balances"}
        open_store(where)._fs.mkdir("balances")
        yield where
    finally:
        server.stop()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.system)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    if request.param == "folder":
        yield {"folder": str(tmp_path / "store")}
        return
    with s3_server() as found:
        yield found


class Worker:
    """A process that waits for the word."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.tell(asked)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


# Slow: two Python processes start, and race for several rounds.
@pytest.mark.slow
def test_two_processes_that_plan_at_the_same_moment_deliver_each_balance_once(where: dict[str, str]) -> None:
    """In every other round the second one has a corrected amount, which stands in the end."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        asked = {"url": sandbox.url, "token": CREDENTIALS.amlyze, "store": where}
        workers = [stack.enter_context(Worker({**asked, "name": name})) for name in ("first", "second")]
        store = open_store(where)
        for number in range(ROUNDS):
            day, corrected = FIRST + timedelta(days=number), number % 2 == 1
            generations = [f"balances/main_cash/{day}/{name}.parquet" for name in ("0001", "0002")]
            amounts = ["1", "2" if corrected else "1"]
            for generation in generations:
                store.put(generation, b"")
            sandbox.reset()
            at = time.time() + 0.1
            for worker, amount, generation in zip(workers, amounts, generations, strict=True):
                turn = {"day": str(day), "at": at, "amount": amount, "generation": generations[0]}
                worker.tell(turn | {"generation": generation} if corrected else turn)
            judge([worker.hear() for worker in workers], sandbox, store, day, amounts)


def judge(ended: list[dict[str, Any]], sandbox: Sandbox, store: Any, day: date, amounts: list[str]) -> None:
    taken = sandbox.amlyze.delivered
    assert max(Counter(each.number for each in taken).values()) == 1
    assert sandbox.amlyze.rejected == []
    # One delivers everything; the other finds it done, or finds that it was superseded.
    assert {each["ended"] for each in ended} <= {"well", "SupersededRun"}, ended
    well = [each for each in ended if each["ended"] == "well"]
    assert well
    assert all(each["accepted_now"] + each["accepted_before"] == each["rows"] == 9 for each in well)
    # Whoever has the newer balances has the last word.
    held = {each.account_ext_id: each.balance for each in taken}
    assert held == {f"CASH-{each.asset}": each.amount for each in balances(amounts[1])}
    assert amounts[0] != amounts[1] or len(taken) == 9
    assert ended[1]["ended"] == "well" or amounts[0] == amounts[1]
    found = list(outcomes(fold(DayLog(store, "main_cash", day, "amlyze").read())))
    assert [(each.row.asset, each.outcome.status) for each in found] == [
        (f"A{index}", "accepted") for index in range(9)
    ]
