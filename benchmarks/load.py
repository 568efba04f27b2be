"""What delivery costs: ours against a bare loop that posts the very same requests, in the same run.

    python benchmarks/load.py [--rows 100000] [--repeat 3] [--destination elven] [--destination amlyze] ...

The sandbox is a process of its own, reached over sockets on loopback. Each delivery is another one: it reads the
balances from Parquet and delivers them as a load task does, with its receipts on a local disk (TMPDIR's). The bare loop
has requests with the same bodies, signed a moment before, and does nothing but post them one after the other over one
``requests.Session`` and look at the status. So what the sandbox takes to answer is in the wall time of both, and in the
CPU time of neither; starting Python and importing is in none. The programs take turns, and of each the best run counts.
After every run the sandbox must hold all balances once, with their exact sum; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

DESTINATIONS = ("elven", "amlyze", "webhook")
DAY = date(2026, 11, 20)
OPEN_MS = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
DAY_S = 86_400
ACCOUNT = "main_cash"
SEED = 11
BALANCES = "balances.parquet"
# So many requests are signed at once: Elven takes a signature for 30 s.
SIGNED = 50
LIMIT_S = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="balances (100000)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each program, in turn (3)")
    parser.add_argument("--destination", choices=DESTINATIONS, action="append", help="only this one; can be repeated")
    parser.add_argument("--program", choices=["sandbox", "make", "ours", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.program == "sandbox":
        return serve()
    if chosen.program == "make":
        print(json.dumps(make_balances(chosen.folder, chosen.rows)))
        return 0
    if chosen.program:
        run = {"ours": run_ours, "bare": run_bare}[chosen.program]
        print(json.dumps(run(chosen.destination[0], chosen.url, chosen.folder)))
        return 0
    with tempfile.TemporaryDirectory() as folder, Served() as served:
        bench = Bench(served, Path(folder), chosen.rows)
        for destination in chosen.destination or DESTINATIONS:
            for figure, value, meaning in bench.figures(destination, chosen.repeat):
                print(f"{destination + ': ' + figure:42} {value:>18}  {meaning}", flush=True)
    print("\n".join(bench.wrong) or "the sandbox held every balance once, with the exact sum, after every run")
    return 1 if bench.wrong else 0


class Bench:
    """Runs the programs in turn, and holds what arrived against what was sent."""

    def __init__(self, served: Served, folder: Path, rows: int) -> None:
        self._served, self._folder = served, folder
        self._rows, self._few = rows, max(1, rows // 10)
        self._sums = {
            count: self._apart("make", "--rows", count, "--folder", self._place(count)) for count in self._all
        }
        self.wrong: list[str] = []

    @property
    def _all(self) -> tuple[int, int]:
        return self._few, self._rows

    def figures(self, destination: str, repeat: int) -> Iterator[tuple[str, str, str]]:
        few = self._run("ours", destination, self._few)
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
        for _ in range(repeat):
            for program, runs in found.items():
                runs.append(self._run(program, destination, self._rows))
        ours, bare = found["ours"], found["bare"]
        sent = sorted({run["requests"] for run in ours + bare})
        yield "requests", " / ".join(map(str, sent)), f"for {self._rows} balances, in each run of either"
        if len(sent) > 1:
            self.wrong.append(f"{destination}: the programs sent different numbers of requests: {sent}")
        for what, name in (("wall_s", "records/s"), ("cpu_s", "records/s of CPU time")):
            one, other = (min(run[what] for run in runs) for runs in (ours, bare))
            speeds = f"{self._rows / one:,.0f} / {self._rows / other:,.0f}"
            yield f"{name}, ours / bare", speeds, f"{one:.2f} s / {other:.2f} s = {one / other:.2f} times as long"
        most, least = min(run["peak_mib"] for run in ours), few["peak_mib"]
        each = (most - least) * 1024 / max(1, self._rows - self._few)
        yield (
            f"peak memory, {self._rows} / {self._few}",
            f"{most:.0f} / {least:.0f} = {most / least:.2f}",
            f"MiB of the delivering process; {each:.1f} KiB more for each balance more",
        )

    def _run(self, program: str, destination: str, rows: int) -> dict[str, Any]:
        self._served.ask("reset")
        place = ("--destination", destination, "--url", self._served.url, "--folder", self._place(rows))
        found = self._apart(program, *place)
        arrived, made = self._served.ask(destination), self._sums[rows]
        same = Decimal(arrived["sum"]) == Decimal(made["sum"]) and arrived["new"] == arrived["all"] == rows
        if not same or found["accepted"] != rows or arrived["requests"] != found["requests"]:
            self.wrong.append(f"{destination}, {program}: {found}; {made} was to arrive, and what did is {arrived}")
        return found

    def _place(self, rows: int) -> Path:
        return self._folder / str(rows)

    @staticmethod
    def _apart(program: str, *arguments: Any) -> dict[str, Any]:
        command = [sys.executable, __file__, "--program", program, *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


class Served:
    """The sandbox in a process of its own, asked over its standard input."""

    def __enter__(self) -> Served:
        command = [sys.executable, __file__, "--program", "sandbox"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._answer()["url"]
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with its input.
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, what: str) -> dict[str, Any]:
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the sandbox has ended; what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found


def serve() -> int:
    from balance_bridge.sandbox.server import Sandbox

    exact = Context(prec=100)
    with Sandbox() as sandbox:
        print(json.dumps({"url": sandbox.url}), flush=True)
        for line in sys.stdin:
            found: dict[str, Any] = {}
            with sandbox.lock:
                if line.strip() == "reset":
                    sandbox.reset()
                    sandbox.journal.requests.clear()
                else:
                    rows, total = getattr(sandbox, line.strip()).delivered, Decimal(0)
                    for row in rows:
                        total = exact.add(total, row.balance)
                    new = sum(row.state == "new" for row in rows)
                    found = {"all": len(rows), "new": new, "sum": str(total)}
                    found["requests"] = len(sandbox.journal.requests)
            print(json.dumps(found), flush=True)
    return 0


def make_balances(folder: Path, rows: int) -> dict[str, str]:
    """Write a day's balances as the transformation does; returns their exact sum."""
    import pyarrow as pa

    from balance_bridge.sandbox.fixtures import SYMBOLS
    from balance_bridge.transform.balances import to_parquet
    from balance_bridge.transform.parquet import to_frame
    from balance_bridge.transform.schema import BALANCES as SCHEMA

    instants = -(-rows // len(SYMBOLS))
    if instants > DAY_S:
        raise SystemExit(f"a day has room for {DAY_S * len(SYMBOLS)} balances: Elven tells them apart by the second")
    rng, exact, total = random.Random(SEED), Context(prec=100), Decimal(0)
    step_ms = DAY_S // instants * 1000
    amounts = [exact.scaleb(Decimal(rng.randint(0, 10**18)), -9) for _ in range(rows)]
    for amount in amounts:
        total = exact.add(total, amount)
    columns = [
        [SYMBOLS[n % len(SYMBOLS)] for n in range(rows)],
        [OPEN_MS + (n // len(SYMBOLS) + 1) * step_ms for n in range(rows)],
        amounts,
        ["changes"] * rows,
    ]
    arrays = [
        pa.array(values, pa.int64() if name == "at" else SCHEMA.field(name).type).cast(SCHEMA.field(name).type)
        for name, values in zip(SCHEMA.names, columns, strict=True)
    ]
    folder.mkdir()
    (folder / BALANCES).write_bytes(to_parquet(to_frame(pa.table(arrays, schema=SCHEMA))))
    return {"sum": str(total)}


def run_ours(name: str, url: str, folder: Path) -> dict[str, Any]:
    from balance_bridge.load.delivery import Delivery, deliver
    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.localtime import local_texts  # noqa: F401 - imported before the clock runs
    from balance_bridge.store import Store
    from balance_bridge.transform.balances import from_parquet
    from balance_bridge.transport import Transport

    # They stay until the end: a file system can be slow to make files where many have just been removed.
    receipts = tempfile.mkdtemp(dir=folder)
    delivery = Delivery(
        destination=open_destination(name, url, Transport()),
        store=Store(Path(receipts)),
        account=ACCOUNT,
        day=DAY,
        namespace="bb",
        generation=BALANCES,
        run_id="bench",
    )
    watch = Stopwatch()
    with watch:
        summary = deliver(delivery, balances_from_table(from_parquet((folder / BALANCES).read_bytes())))
    return {**watch.figures(), "requests": summary.requests, "accepted": summary.accepted_now}


def run_bare(name: str, url: str, folder: Path) -> dict[str, Any]:
    import requests

    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.load.fold import fold
    from balance_bridge.load.log import Events
    from balance_bridge.load.numbers import number_prefix
    from balance_bridge.load.plan import Decider
    from balance_bridge.transform.balances import from_parquet

    recorder = Recorder()
    destination = open_destination(name, url, recorder)
    due = destination.prepare(balances_from_table(from_parquet((folder / BALANCES).read_bytes())))
    rows, bodies = Decider(destination, number_prefix("bb", ACCOUNT, name), fold(Events())).decide(due)
    numbers: dict[int, list[str]] = {}
    for row in rows:
        numbers.setdefault(row.batch, []).append(row.number)
    requested = [(body, numbers[batch]) for batch, body in bodies.items()]
    accepted, watch = 0, Stopwatch()
    with requests.Session() as session:
        for start in range(0, len(requested), SIGNED):
            some = requested[start : start + SIGNED]
            posts = [recorder.recorded(destination.send, body, sent) for body, sent in some]
            with watch:
                statuses = [session.post(**post, timeout=60).status_code for post in posts]
            accepted += sum(len(sent) for (_, sent), status in zip(some, statuses, strict=True) if status == 200)
    return {**watch.figures(), "requests": len(requested), "accepted": accepted}


def open_destination(name: str, url: str, transport: Any) -> Any:
    """The destination as the accounts file of the sandbox has it, with the limits that are there by default."""
    from balance_bridge.accounts import AmlyzeDestination, ElvenDestination, WebhookDestination
    from balance_bridge.load.amlyze import Amlyze
    from balance_bridge.load.elven import Elven
    from balance_bridge.load.webhook import Webhook
    from balance_bridge.sandbox.fixtures import CREDENTIALS, connections
    from balance_bridge.transport import Credentials

    known = CREDENTIALS
    named = {"name": name, "conn_id": f"{name}_default"}
    if name == "elven":
        ((key, secret),) = known.elven.items()
        entity, source = known.entity_accounts[ACCOUNT], known.sources[ACCOUNT]
        elven = ElvenDestination(**named, entity_account_id=entity, source_id=source, timezone="Asia/Shanghai")
        return Elven(elven, Credentials(url, key, secret), transport)
    if name == "amlyze":
        pattern = known.account_ext_ids[ACCOUNT]
        amlyze = AmlyzeDestination(**named, requester="treasury", account_ext_id=pattern)
        return Amlyze(amlyze, Credentials(url, "", known.amlyze), transport)
    place = connections(url)["webhook_default"]["host"]
    return Webhook(WebhookDestination(**named), Credentials(place, "", known.webhook), transport, account=ACCOUNT)


class Recorder:
    """A transport that notes a request instead of sending it."""

    class Noted(Exception):
        """Ends the sending."""

    def send(self, method: str, url: str, *, headers: dict[str, str], body: bytes, **_: Any) -> Any:
        if method != "POST":
            raise SystemExit(f"{method} {url} was not to be asked")
        self._post = {"url": url, "headers": headers, "data": body}
        raise self.Noted

    def recorded(self, send: Callable[[bytes, list[str]], Any], body: bytes, numbers: list[str]) -> dict[str, Any]:
        """What a destination would post, signed now."""
        with contextlib.suppress(self.Noted):
            send(body, numbers)
        return self._post


class Stopwatch:
    """Wall and CPU seconds of this process, over all that is done within it."""

    def __init__(self) -> None:
        self._wall_s = self._cpu_s = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall_s += time.perf_counter() - self._began[0]
        self._cpu_s += time.process_time() - self._began[1]

    def figures(self) -> dict[str, float]:
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"wall_s": self._wall_s, "cpu_s": self._cpu_s, "peak_mib": peak_mib}


if __name__ == "__main__":
    sys.exit(main())
