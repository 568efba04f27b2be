"""From raw pages to balances: our transformation, and a polars program that does the same job, in the same run.

    python benchmarks/transform.py [--records 1000000] [--runs 3]

Makes a day of synthetic history as raw pages of 500 records, newest first, as the sandbox answers, in a temporary
store. Then each program in a process of its own reads the pages, builds the ledger, proves it and works out the
balances at close, at every change and at every hour. Both must come to the same balances.
Target for ours, with 1,000,000 records on two cores: 12 s and 1 GiB. On a busy machine, compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

DAY = date(2026, 11, 20)
OPEN_MS = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
FETCHED_S = (OPEN_MS + 2 * DAY_MS) / 1000
FIRST_SN = 11_000_000_000
ASSETS = 200
PAGE = 500
POINTS = ["close", "changes", "every 1h"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="history records (1000000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each program, in turn (3)")
    parser.add_argument("--program", choices=["ours", "polars"], help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.program:
        print(json.dumps({"ours": run_ours, "polars": run_polars}[chosen.program](chosen.store)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        size = make_history(Path(folder), chosen.records)
        print(
            f"{chosen.records} records in {size / 2**20:.0f} MiB of JSON ({time.perf_counter() - began:.0f} s to make)"
        )
        results: dict[str, list[dict]] = {"ours": [], "polars": []}
        for _ in range(chosen.runs):
            for program, found in results.items():
                found.append(run_apart(program, Path(folder)))
        return report(results, chosen.records)


def report(results: dict[str, list[dict]], records: int) -> int:
    for program, found in results.items():
        stages = {name: statistics.median(each["stages"][name] for each in found) for name in found[0]["stages"]}
        total = statistics.median(sum(each["stages"].values()) for each in found)
        peak = max(each["peak_mib"] for each in found)
        told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())
        cpu = statistics.median(each["cpu_s"] for each in found)
        print(
            f"{program}: {total:.2f} s, CPU {cpu:.2f} s, {records / total:,.0f} records/s, peak {peak:.0f} MiB ({told})"
        )
    pairs = zip(results["ours"], results["polars"], strict=True)
    ratios = [sum(a["stages"].values()) / sum(b["stages"].values()) for a, b in pairs]
    pairs = zip(results["ours"], results["polars"], strict=True)
    cpu_ratio = statistics.median(a["cpu_s"] / b["cpu_s"] for a, b in pairs)
    print(f"ours / polars: {statistics.median(ratios):.2f}, CPU {cpu_ratio:.2f} (median of {len(ratios)} pairs)")
    same = {each["digest"] for found in results.values() for each in found}
    print("same balances from both" if len(same) == 1 else f"DIFFERENT balances: {results}")
    return 0 if len(same) == 1 else 1


def run_apart(program: str, store: Path) -> dict:
    command = [sys.executable, __file__, "--program", program, "--store", str(store)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class Stages:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now

    def figures(self, digest: str) -> dict:
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"stages": self.seconds, "cpu_s": time.process_time(), "peak_mib": peak_mib, "digest": digest}


def run_ours(root: Path) -> dict:
    from balance_bridge.extract.ascendex import AscendexAccount, Category
    from balance_bridge.extract.day import DayExtraction
    from balance_bridge.points import BalanceRequest
    from balance_bridge.store import Store
    from balance_bridge.transform.balances import balances_at
    from balance_bridge.transform.ledger import build_ledger
    from balance_bridge.transform.reconciliation import reconcile

    store, source = Store(root), AscendexAccount(None, Category.CASH, retention_days=7)  # type: ignore[arg-type]  # nothing is asked
    stages = Stages()
    extraction = DayExtraction(source, store, "bench", asked_by="bench")
    stored = [extraction.snapshot(day) for day in (DAY, date(2026, 11, 21))]
    legs = extraction.history(DAY, *stored).legs
    opening, closing = (each.snapshot for each in stored)
    stages.end("pages to legs")
    ledger = build_ledger(legs)
    del legs
    stages.end("ledger")
    proof = reconcile(opening, closing, ledger)
    if proof.status != "proven":
        raise SystemExit(proof.summary())
    stages.end("proof")
    due = balances_at(opening, closing, ledger, BalanceRequest("bench", POINTS, "UTC", "instant", date(2026, 11, 20)))
    stages.end("balances")
    figures = stages.figures("")
    import pyarrow as pa

    table = pa.Table.from_pandas(due.frame, preserve_index=False).select(["asset", "at", "balance"])
    return {**figures, "digest": digest(table)}


def run_polars(root: Path) -> dict:
    import gzip

    import polars as pl

    leg = pl.List(
        pl.Struct({"asset": pl.String, "curBalance": pl.String, "deltaQty": pl.String, "dataType": pl.String})
    )
    record = {"sn": pl.Int64, "transactTime": pl.Int64, "data": leg}
    page = {
        "order": pl.List(pl.Struct({**record, "orderId": pl.String, "orderType": pl.String, "side": pl.String})),
        "balance": pl.List(pl.Struct({**record, "eventType": pl.String})),
    }
    amount = pl.Decimal(38, 18)
    stages = Stages()

    def body(path: Path) -> bytes:
        return gzip.decompress(path.read_bytes()).partition(b"\n")[2]

    def snapshot(day: str) -> tuple[int, pl.DataFrame]:
        found = json.loads(body(root / f"raw/bench/{day}/snapshot/0001.gz"))
        rows = pl.DataFrame(found["snapshot"], schema={"asset": pl.String, "totalBalance": pl.String})
        return found["meta"]["sn"], rows.select("asset", held=pl.col("totalBalance").cast(amount))

    (open_sn, opening), (close_sn, closing) = snapshot("2026-11-20"), snapshot("2026-11-21")
    parts = []
    paths = sorted((root / f"raw/bench/{DAY}/history/0001").iterdir())
    for start in range(0, len(paths), 64):
        lines = b"\n".join(body(path) for path in paths[start : start + 64])
        pages = pl.read_ndjson(lines, schema=page)
        for kind, event, order in (("order", "side", "orderId"), ("balance", "eventType", None)):
            rows = pages.select(pl.col(kind)).explode(kind).drop_nulls().unnest(kind).explode("data").unnest("data")
            parts.append(
                rows.select(
                    "sn",
                    at=pl.col("transactTime").cast(pl.Datetime("ms", "UTC")),
                    kind=pl.lit(kind),
                    event=pl.col(event),
                    order_id=pl.col(order) if order else pl.lit(None, pl.String),
                    asset="asset",
                    fee=pl.col("dataType") == "fee",
                    delta=pl.col("deltaQty").cast(amount),
                    balance=pl.col("curBalance").cast(amount),
                ).filter(pl.col("sn").is_between(open_sn + 1, close_sn))
            )
    legs = pl.concat(parts)
    del parts
    stages.end("pages to legs")
    first = [pl.col(name).first() for name in ("at", "kind", "event", "order_id", "balance")]
    fee = pl.when("fee").then("delta").otherwise(pl.lit(0, amount)).sum().alias("fee")
    ledger = legs.group_by("asset", "sn").agg(*first, pl.col("delta").sum(), fee).sort("asset", "sn")
    stages.end("ledger")
    chain = ledger.join(opening, on="asset", how="left").with_columns(
        previous=pl.col("balance").shift(1).over("asset").fill_null(pl.col("held")).fill_null(pl.lit(0, amount))
    )
    breaks = chain.filter(pl.col("previous") + pl.col("delta") != pl.col("balance"))
    sums = ledger.group_by("asset").agg(pl.col("delta").sum())
    zero = pl.lit(0, amount)
    held = opening.join(sums, on="asset", how="full", coalesce=True).join(
        closing.rename({"held": "closing"}), on="asset", how="full", coalesce=True
    )
    drift = held.filter(
        pl.col("held").fill_null(zero) + pl.col("delta").fill_null(zero) != pl.col("closing").fill_null(zero)
    )
    if breaks.height or drift.height:
        raise SystemExit("polars finds a break")
    stages.end("proof")
    # The last record by sn among those up to an instant: the running maximum of sn over the records by time.
    by_time = ledger.sort("at", "sn").with_columns(last=pl.col("sn").cum_max().over("asset"))
    states = (
        by_time.select("asset", "at", sn="last")
        .join(ledger.select("asset", "sn", "balance"), on=["asset", "sn"])
        .sort("at", maintain_order=True)
    )
    steps = pl.Series("at", [OPEN_MS + hour * 3_600_000 for hour in range(1, 25)]).cast(pl.Datetime("ms", "UTC"))
    assets = held.select("asset").unique()
    wanted = pl.concat([assets.join(steps.to_frame(), how="cross"), ledger.select("asset", "at")]).unique().sort("at")
    due = wanted.join_asof(states, on="at", by="asset", strategy="backward")
    due = due.join(opening, on="asset", how="left").with_columns(
        balance=pl.coalesce("balance", "held", pl.lit(0, amount))
    )
    due = due.select("asset", "at", "balance").sort("at", "asset")
    stages.end("balances")
    figures = stages.figures("")
    return {**figures, "digest": digest(due.to_arrow())}


def digest(table) -> str:
    """A digest of (asset, at, balance) in order of instant and asset."""
    import hashlib

    import pyarrow as pa

    columns = [pa.string(), pa.timestamp("ms", "UTC"), pa.decimal128(38, 18)]
    table = pa.table(
        [table[name].cast(kind) for name, kind in zip(table.column_names, columns, strict=True)], table.column_names
    )
    table = table.sort_by([("at", "ascending"), ("asset", "ascending")]).combine_chunks()
    found = hashlib.sha256(str(table.num_rows).encode())
    for name in ("at", "balance"):
        found.update(table[name].chunk(0).buffers()[1])
    found.update("".join(table["asset"].to_pylist()).encode())
    return found.hexdigest()[:16]


def make_history(root: Path, records: int) -> int:
    """Write snapshots and pages; returns the bytes of JSON."""
    import msgspec

    from balance_bridge.extract import raw
    from balance_bridge.store import Store, to_json
    from balance_bridge.transport import Response

    rng = random.Random(11)
    store = Store(root)
    for endpoint, account in (("snapshot", "bench"), ("history", "bench-history")):
        store.put(f"raw/bench/account/{endpoint}.json", to_json({"account_ref": account}))
    names = [f"A{n:03d}" if n % 10 else f"A{n:03d}-S" for n in range(ASSETS)]
    held = dict.fromkeys(names, 5_000_000_000_000)  # in 10**-9
    size = 0

    def put(key: str, document: dict) -> None:
        nonlocal size
        body = msgspec.json.encode(document)
        size += len(body)
        store.put(key, raw.pack(Response("GET bench", 200, {}, body, FETCHED_S, FETCHED_S), asked_by="bench"))

    def snapshot(day: str, at_ms: int, sn: int) -> None:
        rows = [{"asset": name, "totalBalance": text(units)} for name, units in held.items()]
        meta = {"ac": "cash", "accountId": "bench", "sn": sn, "snapshotTime": at_ms}
        put(f"raw/bench/{day}/snapshot/0001.gz", {"meta": meta, "snapshot": rows})

    snapshot("2026-11-20", OPEN_MS, FIRST_SN)
    sn, order, balance, cursor = FIRST_SN, [], [], FIRST_SN + 1
    for index in range(records):
        sn += rng.randint(1, 9)
        # Times do not always rise with the sequence.
        at_ms = OPEN_MS + max(1, min(DAY_MS - 1, index * DAY_MS // records + rng.randint(-2000, 2000)))
        if rng.random() < 0.7:
            order.append(fill(rng, held, names, sn, at_ms))
        else:
            name = rng.choice(names)
            delta = rng.randint(-(10**9), 10**9)
            held[name] += delta
            data = [{"asset": name, "curBalance": text(held[name]), "deltaQty": text(delta)}]
            balance.append({"data": data, "eventType": "Reward", "sn": sn, "transactTime": at_ms})
        if len(order) + len(balance) == PAGE or index == records - 1:
            meta = {"ac": "cash", "accountId": "bench-history"}
            key = f"raw/bench/{DAY}/history/0001/{cursor:020d}-0001.gz"
            put(key, {"meta": meta, "order": order[::-1], "balance": balance[::-1]})
            order, balance, cursor = [], [], sn + 1
    snapshot("2026-11-21", OPEN_MS + DAY_MS, sn)
    return size


def fill(rng: random.Random, held: dict[str, int], names: list[str], sn: int, at_ms: int) -> dict:
    bought, paid = rng.sample(names, 2)
    cost = rng.randint(1, 10**11)
    fee = cost // 2000
    held[bought] += cost // 7
    held[paid] -= cost + fee
    after = text(held[paid])
    legs = [
        {"asset": bought, "curBalance": text(held[bought]), "dataType": "trade", "deltaQty": text(cost // 7)},
        {"asset": paid, "curBalance": after, "dataType": "trade", "deltaQty": text(-cost)},
        {"asset": paid, "curBalance": after, "dataType": "fee", "deltaQty": text(-fee)},
    ]
    return {
        "data": legs,
        "liquidityInd": "RemovedLiquidity",
        "orderId": f"r{sn:031x}",
        "orderType": "Limit",
        "side": "Buy",
        "sn": sn,
        "transactTime": at_ms,
    }


def text(units: int) -> str:
    """Exact decimal text of an amount in 10**-9."""
    whole, part = divmod(abs(units), 10**9)
    return f"{'-' if units < 0 else ''}{whole}.{part:09d}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
