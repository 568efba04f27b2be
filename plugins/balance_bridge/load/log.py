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
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import msgspec

from balance_bridge.days import parse_day
from balance_bridge.errors import StoreDamaged
from balance_bridge.load.documents import Kind, Plan, Resolution, Result, Try, decode, encode
from balance_bridge.store import Store

_SUFFIX, _PLAN_SUFFIX = ".jsonl", ".jsonl.gz"
_NAMES = re.compile(
    rf"plan-(?P<plan>[0-9]{{4,}})({re.escape(_PLAN_SUFFIX)}|/(?P<number>[0-9]{{4,}})\.(?P<kind>try|res){_SUFFIX})"
    rf"|resolved-[0-9]{{4,}}{_SUFFIX}"
)


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

    def _read(self, key: str, kind: type[Kind]) -> Kind:
        return decode(self._store.read(key), kind, self._store.describe(key))


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
