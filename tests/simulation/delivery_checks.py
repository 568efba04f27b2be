"""What must hold after every run, judged from the receipts' plain JSON and the servers' books alone."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from balance_bridge.load.audit import outcomes
from balance_bridge.sandbox.books import expected
from balance_bridge.sandbox.world import Book
from simulation.delivery_model import ACCOUNT, IGNORED, POINTS, ZONE, Ended, Simulation
from simulation.delivery_wire import Sent, elven_row

Key = tuple[str, str]


@dataclass
class Planned:
    """A row as it stands on a receipt, with every report about its number."""

    day: date
    batch: str
    row: dict[str, Any]
    created_at: str
    reports: list[tuple[str, str]] = field(default_factory=list)
    silent: bool = False
    shared: bool = False
    after: int = 0
    codes: set[str] = field(default_factory=set)

    @property
    def withdrawn(self) -> bool:
        """Whether it is certain that it was never sent."""
        return self.codes == {"NOT SENT"} and not self.silent

    @property
    def place(self) -> tuple[int, bool]:
        """Its place among its key's attempts, in the order in which they may have arrived."""
        return max(attempt(self.row["number"]), self.after), self.after > 0

    @property
    def content(self) -> frozenset[tuple[str, str]]:
        return content(self.row["wire"])

    @property
    def outcome(self) -> str:
        told = {status for status, _ in self.reports}
        if self.silent:
            # Planned in a batch that has no report: it may have been sent all the same.
            told.add("unknown")
        if "used" in told and "unknown" in told:
            # The number was used, and by a copy of ours.
            told.add("seen")
        ranks = {"accepted": "accepted", "rejected": "rejected", "seen": "seen", "unknown": "unknown"}
        # That we were refused, or that the number was used, says nothing of what another copy has sent.
        ranks |= {"used": "rejected", "refused": "rejected"}
        found = next((outcome for status, outcome in ranks.items() if status in told), "planned")
        # Of a number that two copies planned with different contents only what was accepted counts.
        return "rejected" if self.shared and found != "accepted" and not self.after else found


def content(wire: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What a row says, whatever its number."""
    return frozenset((name, value) for name, value in wire.items() if name != "communicationNumber")


class Paper:
    """The receipts of one destination, read without the package."""

    def __init__(self, simulation: Simulation, destination: str) -> None:
        self.rows: list[Planned] = []
        batches: dict[tuple[str, str], list[Planned]] = {}
        told: list[tuple[tuple[str, str], dict[str, Any]]] = []
        for key, data in sorted(simulation.store.objects.items()):
            parts = key.split("/")
            if parts[:2] != ["receipts", ACCOUNT] or parts[3] != destination or len(parts) < 6:
                continue
            batch, document = (parts[2], parts[4]), json.loads(data)
            if parts[5] == "planned.json":
                batches[batch] = [self._planned(batch, row, document["created_at"]) for row in document["rows"]]
            elif parts[5] in ("answered", "resolved"):
                told.append((batch, document))
        self._report(batches, told)
        numbers = Counter(planned.row["number"] for planned in self.rows if not planned.withdrawn)
        for planned in self.rows:
            planned.shared = numbers[planned.row["number"]] > 1

    def _planned(self, batch: tuple[str, str], row: dict[str, Any], created_at: str) -> Planned:
        for known in self.rows:
            if known.row["number"] == row["number"] and known.row["wire"] == row["wire"]:
                return known
        self.rows.append(Planned(date.fromisoformat(batch[0]), batch[1], row, created_at))
        return self.rows[-1]

    def _report(
        self, batches: dict[tuple[str, str], list[Planned]], told: list[tuple[tuple[str, str], dict[str, Any]]]
    ) -> None:
        reported: set[tuple[tuple[str, str], str]] = set()
        for batch, document in told:
            at = document.get("ended_at") or document["resolved_at"]
            reported |= {(batch, number) for number in document["outcomes"]}
            for planned in batches[batch]:
                each = document["outcomes"].get(planned.row["number"])
                if each is not None:
                    planned.codes.add(each.get("code", ""))
                    planned.reports.append((each.get("weak") or each["status"], at))
                planned.after = max(planned.after, document.get("after", {}).get(planned.row["number"], 0))
        for batch, rows in batches.items():
            for planned in rows:
                if (batch, planned.row["number"]) not in reported:
                    planned.silent |= bool({status for status, _ in planned.reports} & {"used", "refused"})

    def attempts(self) -> dict[str, list[Planned]]:
        """By key, in the order of the attempts' numbers."""
        found: dict[str, list[Planned]] = {}
        for planned in self.rows:
            found.setdefault(planned.row["key"], []).append(planned)
        for each in found.values():
            each.sort(key=lambda planned: planned.place)
        return found

    def settled(self) -> set[frozenset[tuple[str, str]]]:
        """What need not be sent again: the last attempt of its key that was not rejected is accepted."""
        lasting = [
            live[-1]
            for attempts in self.attempts().values()
            if (live := [each for each in attempts if each.outcome != "rejected"])
        ]
        return {planned.content for planned in lasting if planned.outcome == "accepted" and not self._in_doubt(planned)}

    def _in_doubt(self, late: Planned) -> bool:
        """Whether it was sent by an overtaken run, and may have arrived before another amount that is there."""
        return late.after > 0 and any(
            each.row["amount"] != late.row["amount"]
            and each.outcome != "rejected"
            and attempt(each.row["number"]) >= attempt(late.row["number"])
            for each in self.attempts()[late.row["key"]]
        )


def attempt(number: str) -> int:
    return int(number.rpartition("-")[2])


def due(simulation: Simulation, destination: str, book: Book | None = None) -> dict[Key, Decimal]:
    """What the destination's books must hold in the end, worked out from the exchange's books (or from others)."""
    kind = "local_second" if destination == "elven" else "instant"
    zone = ZONE if destination == "elven" else "UTC"
    days = simulation.all_days
    found, _ = expected(book or simulation.book, days[0], days[-1], POINTS[destination], zone, kind)  # type: ignore[arg-type]
    if destination == "elven":
        names = {"BTC": "assetID:BTC", "BTMX-S": "symbol:BTMX"}
        return {
            (names.get(one.asset, f"symbol:{one.asset}"), one.local): one.balance
            for one in found
            if one.asset != IGNORED
        }
    return {(f"CASH-{one.asset}", str(one.at_ms)): one.balance for one in found if one.asset != IGNORED}


def entries(simulation: Simulation, destination: str) -> list[tuple[Key, str, str]]:
    """A server's books in the order in which they grew: key, digits, communication number."""
    if destination == "elven":
        return [((kept.identity, kept.datetime), kept.text, "") for kept in simulation.elven.imports]
    taken = simulation.amlyze.registered
    return [((kept.account_ext_id, str(kept.at_ms)), kept.text, kept.number) for kept in taken]


class Watch:
    """Looks on at each request and receipt, and from run to run."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._looked_at = {"elven": 0, "amlyze": 0}
        self._sent = 0
        self._settled: dict[str, set[frozenset[tuple[str, str]]]] = {"elven": set(), "amlyze": set()}
        self._planned: dict[str, list[dict[str, Any]]] = {}
        simulation.written, simulation.sending = self._written, self._sending

    def _written(self, key: str) -> None:
        """A receipt of an acceptance is true in the moment in which it is written."""
        folder, _, what = key.partition("/planned.json") if "/planned.json" in key else key.partition("/answered/")
        if not key.startswith("receipts/") or folder == key:
            return
        document, name = json.loads(self._sim.store.objects[key]), key.split("/")[3]
        if not what:
            self._planned[folder] = document["rows"]
            return
        held = {(key, digits) for key, digits, _ in entries(self._sim, name)}
        numbers = {number: digits for _, digits, number in entries(self._sim, name)}
        for row in self._planned[folder]:
            if document["outcomes"].get(row["number"], {}).get("status") == "accepted":
                identity, at, digits = elven_row(row["wire"]) if name == "elven" else ("", "", row["amount"])
                there = ((identity, at), digits) in held if name == "elven" else numbers.get(row["number"]) == digits
                assert there, f"told as accepted, and not in the books: {row}"

    def _sending(self, sent: Sent) -> None:
        """What goes out is on a receipt already."""
        planned = [
            row["wire"] for folder, rows in self._planned.items() if folder.split("/")[3] == sent.api for row in rows
        ]
        for row in sent.rows:
            assert row in planned, f"{sent.api}: sent before it was planned: {row}"

    def before(self) -> None:
        """A run is about to begin."""
        self._settled = {name: Paper(self._sim, name).settled() for name in self._looked_at}
        self._sent = len(self._sim.sent)

    def after(self, ended: list[Ended], *, woken: bool = False) -> dict[str, Paper]:
        """A run has ended, or died; if ``woken``, beside one that hung before the last correction."""
        for each in ended:
            if each.summary is not None:
                counted(each)
        papers = {name: Paper(self._sim, name) for name in self._looked_at}
        for sent in self._sim.sent[self._sent :]:
            for row in sent.rows:
                known = content(row) in self._settled[sent.api]
                assert woken or not known, f"sent again, though accepted before: {row}"
                wires = [planned.row["wire"] for planned in papers[sent.api].rows]
                assert sent.api != "amlyze" or row in wires, "not what was planned"
        for name, paper in papers.items():
            self._agrees(name, paper)
            self._grew(name, paper, woken=woken)
            told = set[str]()
            for day in self._sim.all_days:
                of_day = [one.key for one in outcomes(self._sim.store, ACCOUNT, day, name)]
                assert len(of_day) == len(set(of_day)), "a balance with two outcomes"
                told |= set(of_day)
            planned_for = {planned.row["key"] for planned in paper.rows if not planned.withdrawn}
            assert told == planned_for, "a balance with no outcome"
        return papers

    def _agrees(self, name: str, paper: Paper) -> None:
        if name == "elven":
            held = {(*kept.key[2:], kept.text) for kept in self._sim.elven.imports}
            for planned in paper.rows:
                if planned.outcome == "accepted":
                    assert elven_row(planned.row["wire"]) in held, f"accepted, and not in the books: {planned}"
            return
        taken = {kept.number: kept.text for kept in self._sim.amlyze.registered}
        for planned in paper.rows:
            there = taken.get(planned.row["number"]) == planned.row["amount"]
            assert planned.outcome != "accepted" or there, f"accepted, and not in the books: {planned}"
            assert planned.outcome != "rejected" or not there, f"rejected, and in the books: {planned}"

    def _grew(self, name: str, paper: Paper, *, woken: bool) -> None:
        """What a server's books grew by in this run is right, and nothing is there twice without a reason."""
        grown, wanted = entries(self._sim, name), [due(self._sim, name)]
        if woken:
            wanted.append(due(self._sim, name, self._sim.book_before))
        last: dict[Key, tuple[str, str]] = {}
        for index, (key, digits, number) in enumerate(grown):
            before = last.get(key)
            last[key] = digits, number
            if index < self._looked_at[name]:
                continue
            assert Decimal(digits) in [each.get(key) for each in wanted], f"{name}: {key} {digits} is not due"
            if before is None or woken:
                continue
            if name == "elven":
                assert before[0] == digits or Decimal(before[0]) != Decimal(digits), "the same amount in other digits"
            else:
                self._supersedes(paper, before, digits, number)
        self._looked_at[name] = len(grown)

    def _supersedes(self, paper: Paper, before: tuple[str, str], digits: str, number: str) -> None:
        by_number = {(each.row["number"], each.row["amount"]): each for each in paper.rows}
        new, old = by_number[number, digits], by_number[before[1], before[0]]
        assert new.row.get("replaces"), f"accepted twice, and the second does not name the first: {new}"
        if digits == before[0]:
            between = [
                each.row["amount"] for each in paper.attempts()[new.row["key"]] if old.place < each.place < new.place
            ]
            doubt = old.after or any(amount != digits for amount in between)
            assert doubt, f"accepted twice under one key: {old} and {new}"
            return
        known = [at for status, at in old.reports if status in ("accepted", "seen") and at <= new.created_at]
        shown = new.row.get("supersedes")
        # What a run that hung has told late may have been told after the receipts were read.
        right = shown == before[0] or (old.after and not shown) if known else shown != digits
        assert right, f"the value that was superseded is not shown: {new}"

    def ended_well(self, papers: dict[str, Paper]) -> None:
        """Everything is delivered; nothing is left to do."""
        for name in self._looked_at:
            wanted = due(self._sim, name)
            held = {key: Decimal(digits) for key, digits, _ in entries(self._sim, name)}
            assert held == wanted, f"{name}: the books differ"
            told = {one.key: one for day in self._sim.all_days for one in outcomes(self._sim.store, ACCOUNT, day, name)}
            assert {one.outcome for one in told.values()} == {"accepted"}
            assert sorted(one.amount for one in told.values()) == sorted(wanted.values())
        assert not self._sim.elven.oddities
        assert not self._sim.amlyze.oddities
        assert not self._sim.elven.stray_sources()
        self._no_secrets()

    def _no_secrets(self) -> None:
        kept = {
            key: gzip.decompress(data) if key.endswith(".gz") else data for key, data in self._sim.store.objects.items()
        }
        everything = "\n".join(self._sim.told).encode() + b"".join(kept.values()) + "".join(kept).encode()
        for secret in self._sim.secrets:
            assert secret.encode() not in everything, f"{secret} is told"


def counted(ended: Ended) -> None:
    """A summary counts each balance exactly once."""
    summary = ended.summary
    assert summary is not None
    parts = (
        summary.accepted_now,
        summary.accepted_before,
        summary.seen,
        summary.rejected,
        summary.rejected_locally,
        summary.unknown,
        summary.ignored,
        summary.covered,
        summary.pending,
    )
    assert min(parts) >= 0, summary
    assert summary.rows == sum(parts), summary
    if ended.error is None:
        assert summary.unknown == summary.pending == summary.rejected == 0, summary
