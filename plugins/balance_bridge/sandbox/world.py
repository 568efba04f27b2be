"""What happened on the exchange: a synthetic history, the same for the same seed and the same ``today``.

A book holds one user's account in one category. Each record is *booked* at some instant, and gets the next sequence
number then; its ``transactTime`` may lie up to minutes earlier. So sequence numbers and times disagree, as they do at
the real exchange, while what is visible at any instant is a whole prefix of the sequence.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation, localcontext
from typing import Literal, NamedTuple

Kind = Literal["order", "balance"]

DAY_MS = 86_400_000
DAYS_BEFORE = 10
DAYS_AFTER = 400
BUSY_OFFSET = -2
BUSY_RECORDS = 640

# Enough digits for every sum here; a result that would have to be rounded raises instead.
EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True)
class Leg:
    """One asset's part of a record. ``balance`` is the asset's balance after the whole record."""

    asset: str
    delta: Decimal
    balance: Decimal
    fee: bool = False


@dataclass(frozen=True)
class Record:
    """One record of the history.

    ``event`` is the ``eventType`` of a balance record, the ``orderType`` of an order record; ``at_ms`` is
    ``transactTime``, and ``booked_ms`` when it became visible (``at_ms`` if not given), both UTC milliseconds.
    """

    sn: int
    at_ms: int
    kind: Kind
    event: str
    legs: tuple[Leg, ...]
    booked_ms: int | None = None
    order_id: str = ""
    side: str = ""

    @property
    def visible_ms(self) -> int:
        """UTC milliseconds from which on the exchange shows it."""
        return self.at_ms if self.booked_ms is None else self.booked_ms


@dataclass(frozen=True)
class Snapshot:
    """All balances at the start of a UTC day; zeros are left out. ``sn`` is the last record that it covers."""

    day: date
    sn: int
    balances: Mapping[str, Decimal]

    @property
    def at_ms(self) -> int:
        """The start of the day in UTC milliseconds."""
        return midnight_ms(self.day)


class Book:
    """One account's whole history, written by hand or generated.

    Args:
        name: What the account ids are made of.
        snapshots: In any order.
        records: In any order.
    """

    def __init__(self, name: str, snapshots: Sequence[Snapshot] = (), records: Sequence[Record] = ()) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()
        # The exchange spells one account's id differently at its two endpoints.
        self.snapshot_account_id = f"csh{digest[:29]}"
        self.history_account_id = digest[29:61].upper()
        self.snapshots = {snapshot.day: snapshot for snapshot in snapshots}
        self.records = sorted(records, key=lambda record: record.sn)

    def grow(self, day: date) -> None:
        """Make sure that everything up to the end of a UTC day is there. A book written by hand stays as it is."""

    def between(self, opening: Snapshot, closing: Snapshot) -> list[Record]:
        """Records of (opening sn, closing sn], by sn."""
        return [record for record in self.records if opening.sn < record.sn <= closing.sn]

    def visible(self, sn: int, now_ms: int) -> list[Record]:
        """Records from a sequence number on that the exchange shows by now, by sn."""
        return [record for record in self.records if record.sn >= sn and record.visible_ms <= now_ms]


# Price, tick, decimals of a size, and the largest size in units of its last decimal.
_MARKETS = {
    "BTC": ("61234.5", "0.01", 5, 900),
    "ETH": ("3120.25", "0.01", 4, 2_500),
    "XRP": ("0.5123", "0.0001", 1, 9_000),
    "1INCH": ("0.3871", "0.0001", 2, 90_000),
    "NO": ("2.5", "0.001", 3, 400_000),
    "SOL": ("141.77", "0.01", 3, 9_000),
    "ADA": ("0.4412", "0.0001", 1, 9_000),
    "FLASH": ("1.25", "0.01", 2, 9_000),
}

_CASH = {
    "BTC": "3.51204417",
    "ETH": "40.25",
    "USDT": "250000.11",
    "XRP": "15000",
    "1INCH": "8123.45",
    "NO": "1234.567",
    "SOL": "310.125",
    "BTMX-S": "40000.112249123",
    "BTT-B": "1000000.5",
    "ANKR": "200",
    "AKRO": "1858",
    "SPAM": "777000",
}
_MARGIN = {"BTC": "0.0301", "ETH": "5.5", "USDT": "-1628.51466633", "SOL": "12", "BTMX-S": "310.000000021"}
_CASH_TRADED = ("BTC", "ETH", "XRP", "1INCH", "NO", "SOL")
_MARGIN_TRADED = ("BTC", "ETH", "SOL")


class _Event(NamedTuple):
    kind: Kind
    event: str
    moves: tuple[tuple[str, Decimal, bool], ...]  # asset, delta, whether it is a fee
    side: str = ""


class GeneratedBook(Book):
    """A book that is made up day by day, as far as it is asked for.

    Args:
        seed: With ``today`` and ``name`` it determines everything.
        today: The UTC day around which the world is built; the busy day and the special events lie just before it.
        name: Tells accounts apart.
        category: ``cash`` or ``margin``.
    """

    def __init__(self, seed: int, today: date, name: str, category: str) -> None:
        super().__init__(f"{seed}/{name}/{category}")
        self.today = today
        self._margin = category == "margin"
        self._seed = f"{seed}/{name}/{category}"
        self._balances = {asset: Decimal(text) for asset, text in (_MARGIN if self._margin else _CASH).items()}
        self._offset = -DAYS_BEFORE
        self._sn = 10_870_097_597 + self._random("sn").randrange(1_000_000_000)
        self._close(self._offset)

    def grow(self, day: date) -> None:
        """Generate everything up to the end of a UTC day, at most 400 days after ``today``."""
        last = min((day - self.today).days, DAYS_AFTER)
        while self._offset <= last:
            with localcontext(EXACT):
                self._generate(self._offset)
            self._offset += 1
            self._close(self._offset)

    def _random(self, purpose: object) -> random.Random:
        # A text as a seed is hashed by a fixed rule: the same in every process.
        return random.Random(f"{self._seed}/{purpose}")

    def _close(self, offset: int) -> None:
        day = self.today + timedelta(days=offset)
        kept = {asset: amount for asset, amount in sorted(self._balances.items()) if amount}
        self.snapshots[day] = Snapshot(day, self._sn, kept)

    def _generate(self, offset: int) -> None:
        rng = self._random(offset)
        opening_ms = midnight_ms(self.today + timedelta(days=offset))
        if self._margin:
            count = rng.randint(40, 150)
        else:
            count = BUSY_RECORDS if offset == BUSY_OFFSET else rng.randint(100, 300)
        times = _times(rng, count)
        traded = [
            asset
            for asset in (_MARGIN_TRADED if self._margin else _CASH_TRADED)
            if asset == "BTC" or rng.random() < 0.7  # so that some assets rest on some days
        ]
        script = {} if self._margin else self._script(rng, count // 2)
        for index, (booked_ms, at_ms) in enumerate(times):
            special = script.get((offset, index))
            event = special() if special else self._any(rng, traded)
            self._book(rng, event, opening_ms + booked_ms, opening_ms + at_ms)

    def _script(self, rng: random.Random, half: int) -> dict[tuple[int, int], Callable[[], _Event]]:
        """What must happen on some days before today, by the day and the place among its records."""
        held = self._balances
        return {
            # In neither snapshot, and yet touched.
            (-3, half): lambda: self._trade(rng, "FLASH", Decimal("12.5")),
            (-3, half + 9): lambda: self._trade(rng, "FLASH", -held["FLASH"]),
            # In the opening snapshot only.
            (-2, half): lambda: _moved("Withdrawal", "AKRO", -held["AKRO"]),
            # First seen in the middle of a day.
            (-1, half): lambda: self._trade(rng, "ADA", Decimal("12.5")),
        }

    def _book(self, rng: random.Random, event: _Event, booked_ms: int, at_ms: int) -> None:
        self._sn += rng.choice((1, 1, rng.randint(2, 90), rng.randint(100, 400_000)))
        for asset, delta, _ in event.moves:
            self._balances[asset] = self._balances.get(asset, Decimal(0)) + delta
        legs = tuple(Leg(asset, delta, self._balances[asset], fee) for asset, delta, fee in event.moves)
        order_id = f"r{self._sn:x}U{rng.getrandbits(40):010d}" if event.kind == "order" else ""
        self.records.append(
            Record(self._sn, at_ms, event.kind, event.event, legs, booked_ms, order_id=order_id, side=event.side)
        )

    def _any(self, rng: random.Random, traded: Sequence[str]) -> _Event:
        dice = rng.random()
        if dice < 0.62:
            return self._trade(rng, rng.choice(traded))
        if dice < 0.80:
            units = rng.choice((7, 29, rng.randint(1, 999)))
            return _moved("Btmxmining", "BTMX-S", Decimal(units).scaleb(-9))
        if dice < 0.90:
            if self._margin:
                return _moved("Interest", "USDT", -Decimal(rng.randint(1, 5_000_000)).scaleb(-8))
            return _moved("Reward", rng.choice(("NO", "1INCH", "ETH")), Decimal(rng.randint(1, 999)).scaleb(-18))
        if dice < 0.97 or self._margin:
            return _moved("Deposit", rng.choice(traded), Decimal(rng.randint(1, 900)).scaleb(-3))
        if dice < 0.985:
            return _moved("Withdrawal", "USDT", -Decimal(rng.randint(1_000, 90_000)).scaleb(-2))
        return _moved("Airdrop", rng.choice(("SPAM", "BTT-B")), Decimal(rng.randint(1, 10**12)).scaleb(-9))

    def _trade(self, rng: random.Random, asset: str, quantity: Decimal | None = None) -> _Event:
        middle, tick, decimals, most = _MARKETS[asset]
        price = Decimal(middle) + Decimal(tick) * rng.randint(-300, 300)
        if quantity is None:
            size = Decimal(rng.randint(1, most)).scaleb(-decimals)
            quantity = size if self._buys(rng, asset, size, size * price) else -size
        value = quantity * price
        fee = -abs(value) * Decimal("0.0005")
        buying = quantity > 0
        side, order_type = ("Buy" if buying else "Sell"), rng.choice(("Limit", "Market"))
        if rng.random() < 0.3:  # the case of both is not to be relied upon
            side, order_type = side.lower(), order_type.lower()
        fee_asset = "BTMX-S" if rng.random() < 0.05 and self._balances["BTMX-S"] > 20 else "USDT"
        fee = -Decimal(rng.randint(1, 10**8)).scaleb(-9) if fee_asset == "BTMX-S" else fee
        moves = ((asset, quantity, False), ("USDT", -value, False), (fee_asset, fee, True))
        return _Event("order", order_type, moves, side)

    def _buys(self, rng: random.Random, asset: str, size: Decimal, value: Decimal) -> bool:
        held, cash = self._balances.get(asset, Decimal(0)), self._balances["USDT"]
        if held < size:
            return True
        if self._margin:  # borrowed money: kept below zero and within a limit
            return cash > -600 or (cash > -9_000 and rng.random() < 0.5)
        return cash > 2 * value and rng.random() < 0.5


def _moved(event: str, asset: str, delta: Decimal) -> _Event:
    return _Event("balance", event, ((asset, delta, False),))


def _times(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """A day's (booked, transactTime) in milliseconds after its start, by booking."""
    late = (1_500, -rng.randint(1, 9_000))  # happened before midnight, booked after it
    first = (2_750, 0)  # exactly at the opening instant
    last = (DAY_MS, DAY_MS)  # exactly at the closing instant
    times = [late, first]
    for booked_ms in sorted(rng.sample(range(5_000, DAY_MS - 5_000), count - 3)):
        lag_ms = rng.randint(1, 240_000) if rng.random() < 0.3 else 0
        times.append((booked_ms, max(booked_ms - lag_ms, 1_000)))
    return [*times, last]


class World:
    """All books, by API key and category; those that nobody wrote by hand are generated when first asked for.

    Args:
        seed: Determines the generated books.
        today: The UTC day around which they are built.
        books: Books written by hand, by (API key, category).
    """

    def __init__(self, seed: int, today: date, books: Mapping[tuple[str, str], Book] | None = None) -> None:
        self.seed = seed
        self.today = today
        self._books = dict(books or {})

    def book(self, key: str, category: str, day: date) -> Book:
        """An account's book with everything up to the end of a UTC day."""
        book = self._books.get((key, category))
        if book is None:
            book = self._books[key, category] = GeneratedBook(self.seed, self.today, key, category)
        book.grow(day)
        return book


def midnight_ms(day: date) -> int:
    """The start of a UTC day in milliseconds since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def utc_day(at_ms: int) -> date:
    """The UTC day of an instant in milliseconds."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).date()
