"""A destination's logs, read as plain JSON lines and interpreted without the package, as simply as it can be done."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Content = frozenset[tuple[str, str]]


@dataclass
class Request:
    """A try with its result, if it has one."""

    plan: int
    number: int
    rows: int
    sent_at: float
    over_at: float
    result: Json | None

    @property
    def left(self) -> bool:
        """Whether it may have arrived."""
        return self.result is None or self.result["sent"]

    def says(self, number: str) -> str:
        """``accepted``, ``refused`` (this very record), ``nothing done`` (by this request) or ``open``."""
        said, of_record = self.word(number)
        if said == "rejected":
            return "refused" if of_record else "nothing done"
        return said if said == "accepted" else "open"

    def word(self, number: str) -> tuple[str, bool]:
        """What was said about a number, and whether of this very record."""
        result = self.result or {}
        if number in result.get("records", {}):
            return result["records"][number]["said"], True
        return (result.get("whole") or {}).get("said", "nothing"), False

    def may_follow(self, other: Request, read: Mapping[str, int]) -> bool:
        """Whether it may have arrived after another one, whose plan's run had read so many tries."""
        if (self.plan, self.number) > (other.plan, other.number):
            return True
        if self.number > read.get(f"{self.plan:04}", 0) and self.plan < other.plan:
            return True
        if self.result is None:
            return self.over_at > other.sent_at
        newest = self.result["newest"]
        return newest is None or self.result["ended_at"] > other.sent_at or self.plan < other.plan <= newest


@dataclass
class Number:
    """A communication number with its one content, and every request that carried it."""

    day: str
    plan: int
    row: Json
    requests: list[Request] = field(default_factory=list)
    found: tuple[str, Mapping[str, int]] | None = None

    @property
    def name(self) -> str:
        """The number itself."""
        text: str = self.row["number"]
        return text

    @property
    def content(self) -> Content:
        """What it says, whatever its number."""
        return content(self.row["wire"])

    @property
    def left(self) -> list[Request]:
        """The requests that may have arrived."""
        return [request for request in self.requests if request.left]

    @property
    def changing(self) -> list[Request]:
        """The requests around which its content may have come to the destination."""
        words = [(request, request.word(self.name)[0]) for request in self.left]
        ours = [request for request, said in words if said not in ("rejected", "used")]
        # Somebody else has used the number: nobody knows when, and for what.
        return ours or [request for request, said in words if said == "used"]

    @property
    def status(self) -> str:
        """``accepted``, ``rejected``, ``open`` or ``unsent``."""
        return self.status_by(self.left)

    def status_by(self, requests: Sequence[Request]) -> str:
        """The same, if these were all that may have arrived."""
        if not requests:
            return "unsent"
        said = {request.says(self.name) for request in requests}
        found, read = self.found or ("", {})
        if "accepted" in {*said, found}:
            return "accepted"
        if found:
            # A person has found that it was not there; so whatever it is now, a later request has made it.
            later = [each for each in requests if each.number > read.get(f"{each.plan:04}", 0)]
            said = {request.says(self.name) for request in later}
        return "open" if "open" in said and "refused" not in said else "rejected"

    @property
    def accepted_by(self) -> Request:
        """The last request by which it was accepted; if a person found it out, the last one of all."""
        said = [request for request in self.left if request.word(self.name)[0] == "accepted"]
        return (said or self.left)[-1]


class Paper:
    """The logs of one destination's days.

    Args:
        objects: The store's.
        account: The account's name.
        destination: The destination's name.
        read: What was read before, by key; objects never change.

    Attributes:
        plans: By day and number: head and rows.
        numbers: By the number itself.
    """

    def __init__(
        self, objects: Mapping[str, bytes], account: str, destination: str, read: dict[str, list[Json]]
    ) -> None:
        self.plans: dict[tuple[str, int], tuple[Json, list[Json]]] = {}
        self.numbers: dict[str, Number] = {}
        self.place: Json | None = None
        tries: dict[tuple[str, int, int], Json] = {}
        results: dict[tuple[str, int, int], Json] = {}
        for key, data in sorted(objects.items()):
            parts = key.split("/")
            if parts[:2] != ["receipts", account]:
                continue
            if key not in read:
                read[key] = lines_of(key, data)
            if parts[2:4] == ["places", destination]:
                self.place = read[key][0]
            elif parts[3] == destination and len(parts) == 6:
                at = parts[2], int(parts[4][5:]), int(parts[5].split(".")[0])
                (tries if parts[5].endswith(".try.jsonl") else results)[at] = read[key][0]
            elif parts[3] == destination and parts[4].startswith("plan-"):
                head, *rows = read[key]
                self._take_in(parts[2], int(parts[4][5:9]), head, rows)
            elif parts[3] == destination:
                document = read[key][0]
                for number, word in document["words"].items():
                    self.numbers[number].found = word["said"], document.get("read", {})
        for (day, plan, number), made in sorted(tries.items()):
            self._add_request(day, made, plan, number, results.get((day, plan, number)))

    def _take_in(self, day: str, plan: int, head: Json, rows: list[Json]) -> None:
        self.plans[day, plan] = head, rows
        for row in rows:
            if row["action"] == "send":
                known = self.numbers.setdefault(row["number"], Number(day, plan, row))
                assert known.row["wire"] == row["wire"], f"a number with two contents: {known.row} and {row}"

    def _add_request(self, day: str, made: Json, plan: int, number: int, result: Json | None) -> None:
        over_at = made["sent_at"] + made["deadline_s"]
        rows = [row for row in self.plans[day, plan][1] if row.get("batch") == made["batch"]]
        request = Request(plan, number, len(rows), made["sent_at"], over_at, result)
        for row in rows:
            self.numbers[row["number"]].requests.append(request)

    def newest(self, day: str) -> tuple[Json, list[Json]]:
        """Head and rows of a day's newest plan."""
        last = max((plan for of, plan in self.plans if of == day), default=0)
        return self.plans.get((day, last), ({}, []))

    @property
    def used(self) -> bool:
        """Whether anything may have arrived."""
        return any(each.status in ("accepted", "open") for each in self.numbers.values())

    def settled(self) -> dict[tuple[tuple[str, int], Content], Number]:
        """What was accepted of each balance, and after which nothing else can have arrived in its place."""
        accepted = [each for each in self.numbers.values() if each.status == "accepted"]
        return {(balance_of(each.row), each.content): each for each in accepted if not self.in_doubt(each)}

    def in_doubt(self, one: Number) -> bool:
        """Whether anything else may have arrived after it, under its key or for its balance."""
        accepted_by = one.accepted_by
        read = self.plans[one.day, accepted_by.plan][0]["read"]
        return any(
            request.may_follow(accepted_by, read)
            for other in self.rivals(one)
            if other.status != "rejected"
            for request in other.changing
        )

    def known(self, one: Number, plan: int) -> tuple[list[Request], bool]:
        """The requests with a number that a plan's run knew to be over; and whether there may have been others."""
        read = self.plans[one.day, plan][0]["read"]
        before = [each for each in one.requests if each.plan < plan]
        known = [each for each in before if each.result is not None and each.number <= read.get(f"{each.plan:04}", 0)]
        return [each for each in known if each.left], len(known) < len(before)

    def may_have_rivals(self, one: Number) -> bool:
        """Whether anything else may have arrived under its key or for its balance."""
        return any(other.changing for other in self.rivals(one) if other.status != "rejected")

    def rivals(self, one: Number) -> Iterable[Number]:
        """The numbers with another content under the same key, or of the same balance."""
        for other in self.numbers.values():
            related = other.row["key"] == one.row["key"] or balance_of(other.row) == balance_of(one.row)
            if other.day == one.day and related and other.content != one.content:
                yield other

    def chain(self, one: Number) -> list[str]:
        """The numbers that a number names as those before it."""
        found, name = [], one.row.get("replaces", "")
        while name:
            found.append(name)
            name = self.numbers[name].row.get("replaces", "")
        return found


def balance_of(row: Json) -> tuple[str, int]:
    """What a row is about."""
    return row["asset"], row["at_ms"]


def content(wire: Mapping[str, str]) -> Content:
    """What a record says, whatever its number."""
    return frozenset((name, value) for name, value in wire.items() if name != "communicationNumber")


def lines_of(key: str, data: bytes) -> list[Json]:
    """An object's lines without the last one, which holds the digest."""
    text = gzip.decompress(data) if key.endswith(".gz") else data
    lines = [json.loads(line) for line in text.splitlines()]
    assert set(lines[-1]) == {"sha256"}, f"{key} is not whole"
    return lines[:-1]
