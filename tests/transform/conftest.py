"""Random histories of an account, kept in plain Python, and what they look like to the transformation."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.transform.schema import LEGS
from balance_bridge.transform.snapshot import Snapshot

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
ASSETS = ["BTC", "USDT", "BTMX-S", "1INCH", "NO"]

# Days on which the zone does something, each with one on which it does nothing.
DAYS = [
    ("UTC", "2026-03-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Europe/Berlin", "2026-10-24"),
    ("America/New_York", "2026-11-01"),
    ("America/New_York", "2026-03-08"),
    ("Asia/Kolkata", "2026-06-01"),
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Australia/Lord_Howe", "2026-10-03"),
    ("America/Santiago", "2026-09-06"),
    ("America/Santiago", "2026-04-04"),
    ("America/Santiago", "2026-04-05"),
    ("Pacific/Apia", "2011-12-29"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Shanghai", "2026-05-01"),
    ("America/Havana", "2026-03-08"),
    ("America/Havana", "2026-11-01"),
    ("Africa/Monrovia", "1972-01-07"),
    ("Asia/Shanghai", "1968-12-31"),
    # What clocks repeat lies on both sides of a UTC midnight, or begins with it.
    ("Antarctica/Troll", "2026-10-24"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Asia/Baku", "2015-10-24"),
    ("Asia/Baku", "2015-10-25"),
    ("Atlantic/Azores", "2026-10-25"),
]


def amount(units: int) -> Decimal:
    """An exact amount of so many units of 10**-18."""
    return Decimal(units).scaleb(-18, money.EXACT)


def ms_of(day: str) -> int:
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def local(at_ms: int, zone: str) -> datetime:
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def local_text(at_ms: int, zone: str) -> str:
    return local(at_ms, zone).strftime("%Y-%m-%d %H:%M:%S")


def midnights(open_ms: int, close_ms: int, zone: str) -> list[int]:
    """First instants of local dates, by looking at every minute from two days before on."""
    firsts: dict[object, int] = {}
    step_ms = 60_000 if open_ms > ms_of("1973-01-01") else 30_000  # Monrovia's offset was no whole minute until 1972
    for at_ms in range(open_ms - 2 * DAY_MS, close_ms + 1, step_ms):
        firsts.setdefault(local(at_ms, zone).date(), at_ms)
    return [at_ms for at_ms in firsts.values() if open_ms < at_ms <= close_ms]


@dataclass(frozen=True)
class Leg:
    asset: str
    units: int
    fee: bool


@dataclass(frozen=True)
class Record:
    sn: int
    at: int
    kind: str
    legs: tuple[Leg, ...]
    after: dict[str, int]  # balance after the record, per asset that it touches

    def delta(self, asset: str) -> int:
        return sum(leg.units for leg in self.legs if leg.asset == asset)


@dataclass(frozen=True)
class History:
    open_ms: int
    open_sn: int
    close_sn: int
    before: dict[str, int]
    records: tuple[Record, ...] = field(default=())

    @property
    def opening(self) -> Snapshot:
        return Snapshot(self.open_sn, self.open_ms, {asset: amount(units) for asset, units in self.before.items()})

    @property
    def after(self) -> dict[str, int]:
        balances = dict(self.before)
        for record in self.records:
            balances.update(record.after)
        return balances

    @property
    def closing(self) -> Snapshot:
        balances = {asset: amount(units) for asset, units in self.after.items() if units}
        return Snapshot(self.close_sn, self.open_ms + DAY_MS, balances)

    def without(self, record: Record) -> History:
        return replace(self, records=tuple(other for other in self.records if other is not record))

    def legs(self, seed: int = 0, *, dictionary: bool = False) -> pa.Table:
        rows = [
            {
                "sn": record.sn,
                "at": record.at,
                "kind": record.kind,
                "event": "Limit" if record.kind == "order" else "Deposit",
                "order_id": f"id{record.sn}" if record.kind == "order" else None,
                "asset": leg.asset,
                "fee": leg.fee,
                "delta": amount(leg.units),
                "balance": amount(record.after[leg.asset]),
            }
            for record in self.records
            for leg in record.legs
        ]
        random.Random(seed).shuffle(rows)
        columns = {name: [row[name] for row in rows] for name in LEGS.names}
        arrays = {name: pa.array(values, LEGS.field(name).type) for name, values in columns.items()}
        if dictionary:
            arrays |= {name: arrays[name].dictionary_encode() for name in ("kind", "event", "order_id", "asset")}
        return pa.table(arrays)


# Ordinary amounts, the smallest ones, and ones that fill all 20 digits before the point.
UNITS = st.one_of(
    st.integers(-(10**21), 10**21),
    st.integers(-100, 100),
    st.integers(-(10**37), 10**37),
    st.sampled_from([0, 1, -1, 7 * 10**9, 2**63, -(2**64), 2**64 - 1, 9 * 10**36]),
)


def instants(open_ms: int) -> st.SearchStrategy[int]:
    """Times of records: anywhere in the day, at and around whole hours, on the edges and a little outside."""
    close_ms = open_ms + DAY_MS
    return st.one_of(
        st.integers(open_ms - 3_000, close_ms + 3_000),
        st.integers(0, 24).flatmap(
            lambda hour: st.integers(-1500, 1500).map(lambda ms: open_ms + hour * 3_600_000 + ms)
        ),
        st.integers(0, 96).map(lambda quarter: open_ms + quarter * 900_000),
        st.sampled_from([open_ms, open_ms + 1, open_ms + 999, open_ms + 1000, close_ms - 1, close_ms, close_ms + 999]),
    )


@st.composite
def histories(draw: st.DrawFn, open_ms: int = ms_of("2026-03-01"), most: int = 20) -> History:
    before = draw(st.dictionaries(st.sampled_from([*ASSETS, "IDLE", "EMPTY"]), UNITS, max_size=5))
    if "EMPTY" in before:
        before["EMPTY"] = 0
    open_sn = draw(st.integers(0, 2**40))
    sn, balances, records = open_sn, dict(before), []
    for _ in range(draw(st.integers(0, most))):
        sn += draw(st.integers(1, 50))
        legs = draw(
            st.lists(st.builds(Leg, st.sampled_from(ASSETS), UNITS, st.booleans()), min_size=1, max_size=4).filter(
                lambda legs: all(
                    abs(balances.get(leg.asset, 0) + sum(x.units for x in legs if x.asset == leg.asset)) < 10**38
                    for leg in legs
                )
            )
        )
        for leg in legs:
            balances[leg.asset] = balances.get(leg.asset, 0) + leg.units
        after = {leg.asset: balances[leg.asset] for leg in legs}
        records.append(
            Record(sn, draw(instants(open_ms)), draw(st.sampled_from(["order", "balance"])), tuple(legs), after)
        )
    return History(open_ms, open_sn, sn + draw(st.integers(0, 5)), before, tuple(records))


class World(SimpleNamespace):
    def __repr__(self) -> str:
        return "world"

    def __hash__(self) -> int:
        return id(self)


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """The module's own names; test modules cannot import each other."""
    return World(**{name: value for name, value in globals().items() if not name.startswith("_")})
