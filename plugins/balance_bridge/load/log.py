"""The log of one day's delivery: immutable objects in the store, each written in one piece, and only once.

::

    receipts/<account>/<day>/<destination>/
        plan-0001.jsonl.gz          what a run decided for every balance of the day
        plan-0001/0001.try.jsonl    before a request: which batch of the plan goes out, and how long that may take
        plan-0001/0001.res.jsonl    after it: what was seen, without interpretation
        resolved-0001.jsonl         what a person found out

Three rules carry everything else:

- A decision is one write. A run reads the log, decides about every balance and writes the next plan; if another run was
  faster, it reads and decides again. Numbers come only from plans, so no number ever has two contents.
- Only the newest plan sends. A run writes a try, looks whether its plan is still the newest, and then sends. Whoever
  writes a plan looks for tries afterwards. So either the sender sees the newer plan, or the planner sees the try.
- A balance without a try was never sent; a try without a result may have arrived.

Objects are JSON lines. The last line holds the digest of all before it, so a truncated or changed object is found.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import msgspec

from balance_bridge.days import parse_day
from balance_bridge.errors import StoreDamaged
from balance_bridge.load.replies import Word
from balance_bridge.store import Store

VERSION = 2
#: Seconds by which the clocks of two machines may differ.
MAX_SKEW_S = 300.0
_SUFFIX, _PLAN_SUFFIX = ".jsonl", ".jsonl.gz"
_NAMES = re.compile(
    rf"plan-(?P<plan>[0-9]{{4,}})({re.escape(_PLAN_SUFFIX)}|/(?P<number>[0-9]{{4,}})\.(?P<kind>try|res){_SUFFIX})"
    rf"|resolved-[0-9]{{4,}}{_SUFFIX}"
)
_GZIP, _FASTEST = 31, 1
_LINES_AT_ONCE = 1000

_SENDS = b'"action":"send"'

_encode = msgspec.json.Encoder()


class Action(StrEnum):
    """What a plan does with a balance."""

    SEND = "send"
    KEEP = "keep"
    REJECT = "reject"
    IGNORE = "ignore"


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a plan decided for one balance.

    Attributes:
        asset: The exchange's asset code.
        at_ms: The instant, UTC milliseconds since the epoch.
        amount: The exact digits.
        points: The points that the instant is for, joined by commas.
        action: ``send``; ``keep``: it goes by the number that an earlier plan gave it; ``reject``: it cannot be sent;
            ``ignore``: the accounts file leaves it out.
        number: The communication number, or empty.
        key: What identifies the balance at the destination.
        wire: The destination's own fields, of ``send`` only; the amount is text here, a bare JSON number on the wire.
        replaces: The number of the attempt before this one, if there was one.
        supersedes: The amount that was accepted (or seen) before, if there was one.
        batch: The request it goes in, counted from 1; 0 for what is not sent.
        text: Why it cannot be sent; or how an earlier delivery differs from the accounts file.
    """

    asset: str
    at_ms: int
    amount: str
    points: str
    action: Action
    number: str = ""
    key: str = ""
    wire: dict[str, str] = {}
    replaces: str = ""
    supersedes: str = ""
    batch: int = 0
    text: str = ""

    @property
    def balance(self) -> tuple[str, int]:
        """Asset and instant."""
        return self.asset, self.at_ms


class Plan(msgspec.Struct):
    """What a run decided for every balance of the day.

    Attributes:
        version: Of this format.
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        kind: Its type.
        run_id: The run that decided.
        created_at: When (UTC).
        generation: The store's object with the balances that it is for.
        so_far: Whether the day went on, so that these are not all its balances.
        read: By earlier plan, the last of its tries whose result the run knew.
        rows: One per balance.
    """

    version: int
    account: str
    day: str
    destination: str
    kind: str
    run_id: str
    created_at: str
    generation: str
    so_far: bool
    read: dict[str, int]
    rows: list[Row] = []

    def batches(self) -> dict[int, list[Row]]:
        """The rows of each request, in order."""
        found: dict[int, list[Row]] = {}
        for row in self.rows:
            if row.batch:
                found.setdefault(row.batch, []).append(row)
        return dict(sorted(found.items()))


class Try(msgspec.Struct):
    """A request that is about to be made.

    Attributes:
        version: Of this format.
        batch: The plan's batch.
        sent_at: Seconds since the epoch, by the sender's clock.
        deadline_s: The request is over after so many seconds, whatever happens.
        body_sha256: Of what is sent.
    """

    version: int
    batch: int
    sent_at: float
    deadline_s: float
    body_sha256: str

    def left_s(self, now_s: float) -> float:
        """Seconds for which the request may still be under way, by its sender's clock; not above 0 once it is over."""
        return self.sent_at + self.deadline_s + MAX_SKEW_S - now_s


class Result(msgspec.Struct, omit_defaults=True):
    """What was seen of a request.

    Attributes:
        version: Of this format.
        sent: Whether it may have been applied; False if no byte of it left, or the response was 429.
        newest: The newest plan after the response had come; None if that could not be found out.
        ended_at: Seconds since the epoch, by the sender's clock.
        whole: What the response says about the request as a whole.
        records: What it says about single numbers.
        http_status: Of the response, or None if there was none.
        request_id: The destination's own id of the request, or empty.
        response_sha256: Of the response's body, or empty.
        foreign: Results for numbers that were not sent.
    """

    version: int
    sent: bool
    newest: int | None
    ended_at: float
    whole: Word | None = None
    records: dict[str, Word] = {}
    http_status: int | None = None
    request_id: str = ""
    response_sha256: str = msgspec.field(name="answer_sha256", default="")
    foreign: int = 0


class Resolution(msgspec.Struct):
    """What a person found out about balances whose outcome was not known.

    Attributes:
        version: Of this format.
        by: Who found it out.
        reason: How they found it out.
        resolved_at: When (UTC).
        words: By communication number.
        read: By plan, the last of its tries that this covers; it says nothing about later ones.
    """

    version: int
    by: str
    reason: str
    resolved_at: str
    words: dict[str, Word]
    read: dict[str, int] = {}


Document = TypeVar("Document", bound=msgspec.Struct)


@dataclass
class Events:
    """All that a log holds.

    Attributes:
        plans: From 1 on, in order.
        tries: By plan and number.
        results: Likewise; a try may lack one.
        resolutions: Oldest first.
    """

    plans: dict[int, Plan] = field(default_factory=dict)
    tries: dict[tuple[int, int], Try] = field(default_factory=dict)
    results: dict[tuple[int, int], Result] = field(default_factory=dict)
    resolutions: list[Resolution] = field(default_factory=list)

    @property
    def newest(self) -> int:
        """The newest plan's number; 0 if there is none."""
        return max(self.plans, default=0)

    @property
    def newest_plan(self) -> Plan | None:
        """The newest plan, or None."""
        return self.plans.get(self.newest)

    def read_so_far(self) -> dict[str, int]:
        """By plan, the last try whose result is known."""
        found: dict[str, int] = {}
        for plan, number in sorted(self.results):
            found[f"{plan:04}"] = number
        return found


class DayLog:
    """The log of one account's day at one destination.

    Args:
        store: Holds it.
        account: The account's name.
        day: The UTC day.
        destination: The destination's name.

    Attributes:
        events: What was read, and what was written since.
    """

    def __init__(self, store: Store, account: str, day: date, destination: str) -> None:
        self._store = store
        self._folder = f"receipts/{account}/{day.isoformat()}/{destination}"
        self.events = Events()

    @property
    def place(self) -> str:
        """The folder, for messages."""
        return self._store.describe(self._folder)

    def read(self) -> Events:
        """Read all of it; what this run has read or written before is not read again, since no object ever changes.

        Raises:
            StoreDamaged: If an object is missing, not what was written, from another release, or not ours.
        """
        plans, tries, results = set[int](), set[tuple[int, int]](), set[tuple[int, int]]()
        resolved = []
        for key, name in self._names():
            if name["plan"] is None:
                resolved.append(key)
                continue
            plans.add(plan := int(name["plan"]))
            if name["number"]:
                (tries if name["kind"] == "try" else results).add((plan, int(name["number"])))
        # All plans up to the newest must be there, and all tries that have a result, whether they were listed or not: a
        # listing is not one instant.
        newest, had = max(plans, default=0), self.events
        self.events = Events(
            {
                plan: had.plans.get(plan) or self._read_plan(plan, all_rows=plan == newest)
                for plan in range(1, newest + 1)
            },
            {at: had.tries.get(at) or self._read(self._key(at, "try"), Try) for at in sorted(tries | results)},
            {at: had.results.get(at) or self._read(self._key(at, "res"), Result) for at in sorted(results)},
            [self._read(key, Resolution) for key in resolved],
        )
        return self.events

    def put_plan(self, number: int, plan: Plan) -> bool:
        """Write a decision; False if another run was faster."""
        won = self._store.put(self._plan_key(number), encode(plan))
        if won:
            self.events.plans[number] = plan
        return won

    def put_try(self, plan: int, made: Try) -> int:
        """Write that a request is about to be made; its number under the plan."""
        number = 1 + next((each for of, each in reversed(self.events.tries) if of == plan), 0)
        if not self._store.put(self._key((plan, number), "try"), encode(made)):
            # Only the run that wrote a plan writes tries under it.
            raise StoreDamaged(f"{self._store.describe(self._key((plan, number), 'try'))} exists already")
        self.events.tries[plan, number] = made
        return number

    def put_result(self, plan: int, number: int, result: Result) -> None:
        """Write what was seen of a request."""
        if self._store.put(self._key((plan, number), "res"), encode(result)):
            self.events.results[plan, number] = result

    def put_resolution(self, resolution: Resolution) -> str:
        """Write what a person found out about the tries that were read; the object's key."""
        last = {f"{plan:04}": number for plan, number in sorted(self.events.tries)}
        resolution = msgspec.structs.replace(resolution, read=last)
        for number in range(1, 10_000):
            key = f"{self._folder}/resolved-{number:04}{_SUFFIX}"
            if self._store.put(key, encode(resolution)):
                return key
        raise StoreDamaged(f"{self.place} holds 9999 resolutions, and no more can follow")

    def has_result(self, plan: int, number: int) -> bool:
        """Whether a try has got its result."""
        return self._store.exists(self._key((plan, number), "res"))

    def newest_since(self, plan: int) -> int:
        """The newest plan's number, if it is this one or a later one."""
        while self._store.exists(self._plan_key(plan + 1)):
            plan += 1
        return plan

    def has_unread_try(self) -> bool:
        """Whether there is a try that was not there when the log was read."""
        found = [(int(each["plan"]), int(each["number"])) for _, each in self._names() if each["kind"] == "try"]
        return any(at not in self.events.tries for at in found)

    def has_news(self) -> bool:
        """Whether there is anything that was neither read nor written by this run."""
        events, known = self.events, 0
        for _ in self._names():
            known += 1
        return known != len(events.plans) + len(events.tries) + len(events.results) + len(events.resolutions)

    def _names(self) -> Iterator[tuple[str, re.Match[str]]]:
        for key in self._store.list(self._folder):
            match = _NAMES.fullmatch(key.removeprefix(f"{self._folder}/"))
            if match is None:
                raise StoreDamaged(
                    f"{self._store.describe(key)} is not part of a delivery log of this release; nothing was sent",
                    do="If it is from an older release, deliver the day with that one; if not, move it away",
                )
            yield key, match

    def _plan_key(self, plan: int) -> str:
        return f"{self._folder}/plan-{plan:04}{_PLAN_SUFFIX}"

    def _key(self, at: tuple[int, int], kind: str) -> str:
        return f"{self._folder}/plan-{at[0]:04}/{at[1]:04}.{kind}{_SUFFIX}"

    def _read_plan(self, plan: int, *, all_rows: bool) -> Plan:
        key = self._plan_key(plan)
        return decode(self._store.read(key), Plan, self._store.describe(key), all_rows=all_rows)

    def _read(self, key: str, kind: type[Document]) -> Document:
        return decode(self._store.read(key), kind, self._store.describe(key))


def encode(document: msgspec.Struct) -> bytes:
    """A document as the bytes of an object; a plan's are compressed, since it has a line for every balance."""
    digest = hashlib.sha256()
    if not isinstance(document, Plan):
        line = _encode.encode(document) + b"\n"
        digest.update(line)
        return line + _seal(digest.hexdigest())
    # Piece by piece, because the text of a plan of many balances is large.
    packed, rows = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP), iter(document.rows)
    line = _encode.encode(msgspec.structs.replace(document, rows=[])) + b"\n"
    pieces = []
    while line:
        digest.update(line)
        pieces.append(packed.compress(line))
        line = _encode.encode_lines(list(islice(rows, _LINES_AT_ONCE)))
    return b"".join((*pieces, packed.compress(_seal(digest.hexdigest())), packed.flush()))


def decode(data: bytes, kind: type[Document], place: str, *, all_rows: bool = True) -> Document:
    """Read a document.

    Args:
        data: The object's bytes.
        kind: What it must be.
        place: The object, for messages.
        all_rows: Whether to read all rows of a plan, or only those that it sends.

    Raises:
        StoreDamaged: If it is not what was written, or of another version.
    """
    try:
        text = zlib.decompress(data, _GZIP) if kind is Plan else data
        head = text.partition(b"\n")[0]
        version = msgspec.json.decode(head, type=_Head).version
        if version != VERSION:
            raise StoreDamaged(
                f"{place} has format version {version}; this release reads {VERSION}",
                why="Nothing was sent",
                do="Deliver the day with the release that wrote it",
            )
        body, _, seal = text.rstrip(b"\n").rpartition(b"\n")
        if seal + b"\n" != _seal(hashlib.sha256(body + b"\n").hexdigest()):
            raise _damaged(place, "it was truncated or changed")
        rest = body[len(head) + 1 :]
        document = msgspec.json.decode(head, type=kind)
        if isinstance(document, Plan):
            lines = rest.split(b"\n") if rest else []
            wanted = lines if all_rows else [line for line in lines if _SENDS in line]
            document.rows = msgspec.json.Decoder(Row).decode_lines(b"\n".join(wanted)) if wanted else []
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(place, str(error)) from error
    return document


class _Head(msgspec.Struct):
    version: int


def _seal(digest: str) -> bytes:
    return b'{"sha256":"' + digest.encode() + b'"}\n'


def _damaged(place: str, why: str) -> StoreDamaged:
    return StoreDamaged(f"{place} is not what was written; nothing was sent", why=why, do="Put it back from a backup")


def time_text(seconds: float) -> str:
    """Seconds since the epoch (UTC) as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def destinations_with_logs(store: Store, account: str, day: date) -> list[str]:
    """The destinations that have a log of a day."""
    prefix = f"receipts/{account}/{day.isoformat()}/"
    return sorted({key.removeprefix(prefix).split("/", 1)[0] for key in store.list(prefix.rstrip("/"))})


def days_with_logs(store: Store, account: str, destination: str) -> list[date]:
    """The days that have a log at a destination."""
    found = set[date]()
    for key in store.list(f"receipts/{account}"):
        parts = key.split("/")
        if len(parts) > 4 and parts[3] == destination and parts[2] != "places":
            found.add(_day(key, parts[2]))
    return sorted(found)


def _day(key: str, text: str) -> date:
    try:
        return parse_day(text)
    except ValueError as error:
        raise StoreDamaged(f"{key}: {text!r} is not a day") from error
