"""What must hold after every run, judged from the receipts' plain JSON and the servers' books alone."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from balance_bridge.load.receipts import outcomes
from balance_bridge.sandbox.books import expected
from simulation.delivery_model import ACCOUNT, IGNORED, POINTS, ZONE, Ended, Simulation
from simulation.delivery_wire import elven_row

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
        return next((outcome for status, outcome in ranks.items() if status in told), "planned")


def content(wire: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What a row says, whatever its number."""
    return frozenset((name, value) for name, value in wire.items() if name != "communicationNumber")


class Paper:
    """The receipts of one destination, read without the package."""

    def __init__(self, simulation: Simulation, destination: str) -> None:
        self.rows: dict[str, Planned] = {}
        self.batches: dict[str, list[tuple[str, str]]] = {}
        told: list[tuple[str, str, str]] = []
        reported: set[tuple[tuple[str, str], str]] = set()
        for key, data in sorted(simulation.store.objects.items()):
            if not key.startswith(f"receipts/{ACCOUNT}/") or key.split("/")[3] != destination:
                continue
            day, _, id_, what = key.split("/")[2:6] if key.count("/") > 4 else [*key.split("/")[2:5], ""]
            batch, document = (day, id_), json.loads(data)
            if what == "planned.json":
                for row in document["rows"]:
                    known = self.rows.get(row["number"])
                    assert known is None or known.row["wire"] == row["wire"], "one number was planned with two contents"
                    planned = Planned(date.fromisoformat(day), id_, row, document["created_at"])
                    self.rows.setdefault(row["number"], planned)
                    self.batches.setdefault(row["number"], []).append(batch)
            elif what in ("answered", "resolved"):
                at = document.get("ended_at") or document["resolved_at"]
                reported |= {(batch, number) for number in document["outcomes"]}
                told += [
                    (number, each.get("weak") or each["status"], at) for number, each in document["outcomes"].items()
                ]
        for number, status, at in told:
            self.rows[number].reports.append((status, at))
        for number, planned in self.rows.items():
            silent = [batch for batch in self.batches[number] if (batch, number) not in reported]
            planned.silent = bool(silent) and bool({status for status, _ in planned.reports} & {"used", "refused"})

    def attempts(self) -> dict[str, list[Planned]]:
        """By key, in the order of the attempts' numbers."""
        found: dict[str, list[Planned]] = {}
        for planned in self.rows.values():
            found.setdefault(planned.row["key"], []).append(planned)
        for each in found.values():
            each.sort(key=lambda planned: attempt(planned.row["number"]))
        return found

    def settled(self) -> set[frozenset[tuple[str, str]]]:
        """What need not be sent again: the last attempt of its key that was not rejected is accepted."""
        lasting = [
            live[-1]
            for attempts in self.attempts().values()
            if (live := [each for each in attempts if each.outcome != "rejected"])
        ]
        return {planned.content for planned in lasting if planned.outcome == "accepted"}


def attempt(number: str) -> int:
    return int(number.rpartition("-")[2])


def due(simulation: Simulation, destination: str) -> dict[Key, Decimal]:
    """What the destination's books must hold in the end, worked out from the exchange's books."""
    kind = "local_second" if destination == "elven" else "instant"
    zone = ZONE if destination == "elven" else "UTC"
    days = simulation.all_days
    found, _ = expected(simulation.book, days[0], days[-1], POINTS[destination], zone, kind)  # type: ignore[arg-type]
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
    """Looks on from run to run."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._looked_at = {"elven": 0, "amlyze": 0}
        self._sent = 0
        self._settled: dict[str, set[frozenset[tuple[str, str]]]] = {"elven": set(), "amlyze": set()}

    def before(self) -> None:
        """A run is about to begin."""
        self._settled = {name: Paper(self._sim, name).settled() for name in self._looked_at}
        self._sent = len(self._sim.sent)

    def after(self, ended: list[Ended]) -> dict[str, Paper]:
        """A run has ended, or died."""
        for each in ended:
            if each.summary is not None:
                counted(each)
        papers = {name: Paper(self._sim, name) for name in self._looked_at}
        for sent in self._sim.sent[self._sent :]:
            for row in sent.rows:
                assert content(row) not in self._settled[sent.api], f"sent again, though accepted before: {row}"
                if sent.api == "amlyze":
                    assert papers["amlyze"].rows[row["communicationNumber"]].row["wire"] == row, "not what was planned"
        for name, paper in papers.items():
            self._agrees(name, paper)
            self._grew(name, paper)
            told = set[str]()
            for day in self._sim.all_days:
                of_day = [one.key for one in outcomes(self._sim.store, ACCOUNT, day, name)]
                assert len(of_day) == len(set(of_day)), "a balance with two outcomes"
                told |= set(of_day)
            assert told == paper.attempts().keys(), "a balance with no outcome"
        return papers

    def _agrees(self, name: str, paper: Paper) -> None:
        if name == "elven":
            held = {(*kept.key[2:], kept.text) for kept in self._sim.elven.imports}
            for planned in paper.rows.values():
                if planned.outcome == "accepted":
                    assert elven_row(planned.row["wire"]) in held, f"accepted, and not in the books: {planned}"
            return
        taken = {kept.number: kept.text for kept in self._sim.amlyze.registered}
        for number, planned in paper.rows.items():
            if planned.outcome == "accepted":
                assert taken.get(number) == planned.row["amount"], f"accepted, and not in the books: {planned}"
            assert planned.outcome != "rejected" or number not in taken, f"rejected, and in the books: {planned}"

    def _grew(self, name: str, paper: Paper) -> None:
        """What a server's books grew by in this run is right, and nothing is there twice without a reason."""
        grown, wanted = entries(self._sim, name), due(self._sim, name)
        last: dict[Key, tuple[str, str]] = {}
        for index, (key, digits, number) in enumerate(grown):
            before = last.get(key)
            last[key] = digits, number
            if index < self._looked_at[name]:
                continue
            assert wanted.get(key) == Decimal(digits), f"{name}: {key} {digits} is not due"
            if before is None:
                continue
            if name == "elven":
                assert before[0] == digits or Decimal(before[0]) != Decimal(digits), "the same amount in other digits"
            else:
                self._supersedes(paper, before, digits, number)
        self._looked_at[name] = len(grown)

    def _supersedes(self, paper: Paper, before: tuple[str, str], digits: str, number: str) -> None:
        new, old = paper.rows[number], paper.rows[before[1]]
        assert new.row.get("replaces"), f"accepted twice, and the second does not name the first: {new}"
        if digits == before[0]:
            between = [
                each.row["amount"]
                for each in paper.attempts()[new.row["key"]]
                if attempt(old.row["number"]) < attempt(each.row["number"]) < attempt(number)
            ]
            assert any(amount != digits for amount in between), f"accepted twice under one key: {old} and {new}"
            return
        known = [at for status, at in old.reports if status in ("accepted", "seen") and at <= new.created_at]
        shown = new.row.get("supersedes")
        assert shown == before[0] if known else shown != digits, f"the value that was superseded is not shown: {new}"

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
