"""What must hold at every step and after every run, judged from the logs' plain JSON and the servers' books alone."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from balance_bridge.errors import PlaceChanged, SupersededRun
from balance_bridge.load.fold import LATE, LOCAL, fold, outcomes
from balance_bridge.load.log import DayLog
from doubles import Killed
from simulation.delivery_model import ACCOUNT, DESTINATIONS, IGNORED, Ended, Simulation
from simulation.delivery_paper import Content, Json, Number, Paper, Request, balance_of, content, lines_of
from simulation.delivery_settings import Settings
from simulation.delivery_wire import Sent

Balance = tuple[tuple[str, int], Content]
Key = tuple[str, ...]
Value = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """A balance that a server has taken.

    Attributes:
        key: What it is held under there.
        text: The digits.
        value: The exact amount, and what else must be right.
        number: The communication number; empty where the server knows none.
    """

    key: Key
    text: str
    value: Value
    number: str


def entries(simulation: Simulation, name: str) -> list[Entry]:
    """A server's books in the order in which they grew."""
    if name == "elven":
        return [Entry(kept.key[1:], kept.balance.text, (kept.balance,), "") for kept in simulation.elven.delivered]
    return [
        Entry(
            (kept.account_ext_id, kept.balance_at),
            kept.balance.text,
            (kept.balance, kept.balance_type or "", kept.business_unit or ""),
            kept.number,
        )
        for kept in simulation.amlyze.delivered
    ]


def key_of(name: str, wire: dict[str, str]) -> Key:
    """Under what a server holds a record."""
    if name == "elven":
        identity = f"assetID:{wire['assetID']}" if "assetID" in wire else f"symbol:{wire['symbol']}"
        return wire["sourceId"], identity, wire["datetime"]
    return wire["accountExtId"], wire["balanceAt"]


@dataclass
class Watch:
    """Looks on at each request and each object of the log, and from run to run."""

    simulation: Simulation
    _entries_seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DESTINATIONS, 0))
    _sent: int = 0
    _before: dict[str, Paper] = field(default_factory=dict)
    _settled: dict[str, dict[Balance, Number]] = field(default_factory=dict)
    _due: dict[tuple[int, str, Settings], dict[Key, Value]] = field(default_factory=dict)
    _plans: dict[str, list[Json]] = field(default_factory=dict)
    _failures: list[AssertionError] = field(default_factory=list)
    _lines: dict[str, list[Json]] = field(default_factory=dict)
    _generations: dict[str, str] = field(default_factory=dict)
    _try_of: dict[int, tuple[str, Json]] = field(default_factory=dict)
    _looks_of: dict[int, dict[str, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        its = self.simulation
        its.written, its.looked, its.sending = self._noting(self._written), self._looked, self._noting(self._sending)

    def _noting(self, check: Callable[[Any], None]) -> Callable[[Any], None]:
        """A check that what it is called by cannot take for a fault of the wire."""

        def noting(what: Any) -> None:
            try:
                check(what)
            except AssertionError as failure:
                self._failures.append(failure)

        return noting

    # --- at each step

    def _written(self, key: str) -> None:
        folder, _, name = key.rpartition("/")
        if name.startswith("plan-"):
            head, *self._plans[key.removesuffix(".jsonl.gz")] = lines_of(key, self.simulation.store.objects[key])
            generation = self._generations.get(folder, "")
            assert head["generation"] >= generation, f"{key} goes back from {generation} to {head['generation']}"
            self._generations[folder] = head["generation"]
        elif name.endswith(".try.jsonl"):
            self._try_of[self.simulation.copy] = folder, lines_of(key, self.simulation.store.objects[key])[0]
            self._looks_of[self.simulation.copy] = {}
        elif name.endswith(".res.jsonl"):
            self._accepted_is_true(key, folder)

    def _looked(self, key: str, found: bool) -> None:
        self._looks_of.setdefault(self.simulation.copy, {})[key] = found

    def _sending(self, sent: Sent) -> None:
        """What goes out is in a plan, has a try, and the sender has seen no newer plan or place since it wrote that."""
        folder, made = self._try_of[sent.copy]
        rows = [row for row in self._plans[folder] if row.get("batch") == made["batch"]]
        sent.numbers = [row["number"] for row in rows]
        assert sent.rows == [row["wire"] for row in rows], f"sent, but not planned like that: {sent}"
        assert sent.body_sha256 == made["body_sha256"], f"sent without a try: {sent}"
        following = f"{folder[:-4]}{int(folder[-4:]) + 1:04}.jsonl.gz"
        looks = self._looks_of[sent.copy]
        assert looks.get(following) is False, f"sent without having looked for a newer plan: {looks}"
        places = [found for key, found in looks.items() if key.startswith(f"receipts/{ACCOUNT}/places/{sent.api}/")]
        assert places == [False], f"sent without having looked for another place: {looks}"

    def _accepted_is_true(self, key: str, folder: str) -> None:
        """A result that says accepted is true in the moment in which it is written."""
        objects, name = self.simulation.store.objects, key.split("/")[3]
        made = lines_of(key, objects[key.replace(".res.", ".try.")])[0]
        result = lines_of(key, objects[key])[0]
        held = {(each.key, each.text, each.number) for each in entries(self.simulation, name)}
        for row in self._plans[folder]:
            if row.get("batch") != made["batch"]:
                continue
            word = result.get("records", {}).get(row["number"]) or result.get("whole") or {"said": "nothing"}
            if word["said"] == "accepted":
                number = row["number"] if name == "amlyze" else ""
                assert (key_of(name, row["wire"]), row["amount"], number) in held, f"accepted, not in the books: {row}"

    # --- from run to run

    def before(self) -> None:
        """A run is about to begin."""
        self._before = {name: self.paper(name) for name in DESTINATIONS}
        self._settled = {name: paper.settled() for name, paper in self._before.items()}
        self._sent = len(self.simulation.sent)

    def paper(self, name: str) -> Paper:
        """A destination's logs as they are now."""
        return Paper(self.simulation.store.objects, ACCOUNT, name, self._lines)

    def after(self, ended: list[Ended], *, frozen: bool = False) -> None:
        """A run has ended, in which a copy stood still or none did."""
        if self._failures:
            raise self._failures[0]
        died = any(isinstance(each.error, Killed) for each in ended)
        # Whether a copy took part that hung before the last correction.
        woken = any(each.by.hung for each in ended)
        for each in ended:
            counted(each)
            late = isinstance(each.error, SupersededRun) and each.error.late
            assert frozen or not late, "something came late, though nothing was frozen"
        for name in DESTINATIONS:
            paper = self.paper(name)
            if not woken:
                self._not_sent_again(name, paper)
            self._refused_elsewhere(name, [each for each in ended if each.task == name])
            self._decided_well(name, paper)
            self._agrees(name, paper)
            self._grew(name, paper, woken=woken)
            for day in self.simulation.all_days:
                self._as_said(name, paper, day)
                of_day = [each for each in ended if (each.task, each.day) == (name, day)]
                if not died and green(of_day):
                    self._green_is_right(name, paper, day)

    def _not_sent_again(self, name: str, paper: Paper) -> None:
        """What was accepted when a run began is not sent again, unless something else may have come after it."""
        for sent in self.simulation.sent[self._sent :]:
            for number in sent.numbers if sent.api == name else ():
                row = paper.numbers[number].row
                known = self._settled[name].get((balance_of(row), content(row["wire"])))
                assert known is None, f"sent again, though accepted before: {row}, {known}"

    def _refused_elsewhere(self, name: str, ended: list[Ended]) -> None:
        """A destination that leads elsewhere, or makes other keys, is refused before any request."""
        place, settings = self._before[name].place, self.simulation.settings
        if place is None or not self._before[name].used:
            return
        moved = place["leads_to"]["url"] != f"http://{name}.{settings.address}"
        keys = {"source_id": settings.source, "timezone": settings.zone} if name == "elven" else {}
        if moved or (place["key_settings"] != keys and not any(each.by.redeliver for each in ended)):
            assert all(isinstance(each.error, (PlaceChanged, Killed)) for each in ended), ended
            assert name not in {sent.api for sent in self.simulation.sent[self._sent :]}, "sent to another place"

    def _decided_well(self, name: str, paper: Paper) -> None:
        """What this run's plans give a new number has a reason; what is being divided goes out in halves."""
        for day, plan in paper.plans.keys() - self._before[name].plans.keys():
            batches: dict[int, list[tuple[Any, ...] | None]] = {}
            for row in paper.plans[day, plan][1]:
                if row["action"] == "send":
                    number = paper.numbers[row["number"]]
                    if number.plan == plan:
                        _new_number_has_a_reason(paper, number)
                    batches.setdefault(row["batch"], []).append(_part(paper, number, plan))
            _in_halves({batch: [part for part in parts if part] for batch, parts in batches.items()})

    def counts_other_keys(self, ended: Sequence[Ended]) -> None:
        """Each summary counts what the destination may hold under keys that the day does not ask for any more."""
        for each in ended:
            asked = {key for _, key, _ in self._wanted(each.task, each.day)}
            numbers = [one for one in self.paper(each.task).numbers.values() if one.day == each.day.isoformat()]
            held = {key_of(each.task, one.row["wire"]) for one in numbers if one.status in ("accepted", "open")}
            assert each.summary is not None
            assert each.summary.other_keys == len(held - asked), f"{each.summary}, but {held - asked}"

    def _agrees(self, name: str, paper: Paper) -> None:
        """What the log says of a number is so in the books."""
        held = {(each.key, each.text, each.number) for each in entries(self.simulation, name)}
        for number, each in paper.numbers.items():
            there = (key_of(name, each.row["wire"]), each.row["amount"], number if name == "amlyze" else "") in held
            assert each.status != "accepted" or there, f"accepted, and not in the books: {each}"
            if name == "amlyze":
                assert each.status not in ("rejected", "unsent") or not there, (
                    f"{each.status}, yet in the books: {each}"
                )

    def _as_said(self, name: str, paper: Paper, day: date) -> None:
        """The package says of each balance what its log says; what it calls accepted is what is there now."""
        current = {each.key: each for each in entries(self.simulation, name)}
        seen = set[tuple[str, int]]()
        for each in outcomes(fold(DayLog(self.simulation.store, ACCOUNT, day, name).read())):
            row, status = each.row, each.outcome.status
            assert row.balance not in seen, "a balance with two outcomes"
            seen.add(row.balance)
            if status == "ignored" or each.outcome.code == LOCAL:
                continue
            number = paper.numbers[row.number]
            allowed = {
                "accepted": {"accepted"},
                "rejected": {"rejected"},
                "planned": {"unsent"},
                "seen": {"open"},
                "unknown": {"accepted"} if each.outcome.code == LATE else {"open"},
            }
            # LATE of a number that is open besides is no contradiction.
            late_too = each.outcome.code == LATE and number.status == "open"
            assert number.status in allowed[status] or late_too, f"{each.outcome}, but {number}"
            if each.outcome.code == LATE:
                assert paper.may_have_rivals(number), f"nothing else can have come after {number}"
            ours = any(request.word(number.name)[0] != "used" for request in number.left)
            assert status != "seen" or ours, f"said to be seen, though nobody knows by whom it was used: {number}"
            if status == "accepted":
                there = current[key_of(name, number.row["wire"])]
                assert there.text == row.amount, f"{row} is said to be accepted, but {there} came after it"
        assert seen == {balance_of(row) for row in paper.newest(day.isoformat())[1]}

    def _green_is_right(self, name: str, paper: Paper, day: date) -> None:
        """After a green run each balance that the day has to deliver is what arrived last under its key."""
        head, rows = paper.newest(day.isoformat())
        if head.get("generation") != self.simulation.due.get(day, {}).get(name):
            return
        kept_elsewhere = {balance_of(row) for row in rows if row.get("text")}
        current = {each.key: each for each in entries(self.simulation, name)}
        for balance, key, value in self._wanted(name, day):
            if balance not in kept_elsewhere:
                assert key in current, f"green, but {balance} is not there"
                assert current[key].value == value, f"green, but {current[key]} is there instead of {value}"

    def _grew(self, name: str, paper: Paper, *, woken: bool) -> None:
        """What a server's books grew by in this run is right, and nothing is there twice without a reason."""
        grown = entries(self.simulation, name)
        known = {self.simulation.settings, *self.simulation.settings_before}
        # One that hung has the amounts of before, and what it finds unknown goes again as it was.
        wanted = [self.due(name, each, before=before) for each in known for before in {False, woken}]
        last: dict[Key, Entry] = {}
        for index, entry in enumerate(grown):
            old = last.get(entry.key)
            last[entry.key] = entry
            if index < self._entries_seen[name]:
                continue
            assert entry.value in [each.get(entry.key) for each in wanted], f"{name}: {entry} is not due"
            if old is None or woken:
                continue
            if name == "elven":
                assert old.text == entry.text or old.value != entry.value, "the same amount in other digits"
            else:
                self._follows(paper, paper.numbers[old.number], paper.numbers[entry.number])
        self._entries_seen[name] = len(grown)

    def _follows(self, paper: Paper, old: Number, new: Number) -> None:
        """A second acceptance under one key names the first, and has a reason."""
        if balance_of(old.row) == balance_of(new.row):
            assert old.name in paper.chain(new), f"accepted twice, and the second does not name the first: {new}"
        if old.content == new.content:
            reason = any(each.left for each in paper.rivals(old) if each.status != "rejected")
            assert reason, f"accepted twice under one key: {old} and {new}"
        shown = new.row.get("supersedes", "")
        if shown:
            before = [each.row for each in paper.numbers.values() if balance_of(each.row) == balance_of(new.row)]
            assert shown in {row["amount"] for row in before}, f"supersedes what never was: {new}"

    def due(self, name: str, settings: Settings | None = None, *, before: bool = False) -> dict[Key, Value]:
        """What a destination's books must hold, by the exchange's books, or by those from before their correction."""
        chosen = settings or self.simulation.settings
        at = (self.simulation.version - before, name, chosen)
        if at not in self._due:
            days = self.simulation.all_days
            found = [each for day in days for each in self._wanted(name, day, chosen, before=before)]
            self._due[at] = {key: value for _, key, value in found}
        return self._due[at]

    def _wanted(
        self, name: str, day: date, settings: Settings | None = None, *, before: bool = False
    ) -> list[tuple[tuple[str, int], Key, Value]]:
        chosen, book = settings or self.simulation.settings, self.simulation.book_before if before else None
        found: list[tuple[tuple[str, int], Key, Value]] = []
        for one in self.simulation.wanted(name, day, book, chosen):
            if one.asset == IGNORED:
                continue
            balance = one.asset, one.at_ms
            if name == "elven":
                key: Key = (chosen.source, chosen.elven_identity(one.asset), one.local)
                found.append((balance, key, (one.balance,)))
            else:
                key = (chosen.amlyze_account(one.asset), instant_text(one.at_ms))
                value = (one.balance, chosen.balance_type or "", chosen.business_unit or "")
                found.append((balance, key, value))
        return found

    def ended_well(self) -> None:
        """Everything is delivered as the accounts file has it now; nothing is left to do."""
        its = self.simulation
        for name in DESTINATIONS:
            wanted = self.due(name)
            held = {each.key: each.value for each in entries(its, name)}
            assert {key: held.get(key) for key in wanted} == wanted, f"{name}: the books differ"
            assert held.keys() == wanted.keys() or its.settings_before, f"{name}: the books hold more than is due"
            found = []
            for day in its.all_days:
                found += outcomes(fold(DayLog(its.store, ACCOUNT, day, name).read()))
            delivered = [each for each in found if each.outcome.status != "ignored"]
            assert {each.outcome.status for each in delivered} == {"accepted"}
            assert not any(each.row.text for each in delivered), "kept with other settings"
            amounts = sorted(Decimal(each.row.amount) for each in delivered)
            assert amounts == sorted(value[0] for value in wanted.values())
        assert not its.elven.oddities
        assert not its.amlyze.oddities
        self._no_secrets()

    def _no_secrets(self) -> None:
        objects = self.simulation.store.objects
        kept = [gzip.decompress(data) if key.endswith(".gz") else data for key, data in objects.items()]
        everything = "\n".join(self.simulation.logged).encode() + b"".join(kept) + "".join(objects).encode()
        for secret in self.simulation.secrets:
            assert secret.encode() not in everything, f"{secret} is shown"


def _new_number_has_a_reason(paper: Paper, new: Number) -> None:
    """Nothing gets a new number while its content is open under another one, or because the very same run failed."""
    for old in paper.numbers.values():
        if old.name == new.name or balance_of(old.row) != balance_of(new.row) or old.content != new.content:
            continue
        known, _ = paper.known(old, new.plan)
        if old.found is None and old.status_by(known) == "open":
            assert paper.may_have_rivals(old), f"open, and yet under a new number: {old} and {new}"
    before = paper.numbers.get(new.row.get("replaces", ""))
    known, others = paper.known(before, new.plan) if before else ([], False)
    if before is None or not known or others or before.found is not None:
        return
    run_of = {plan: head["run_id"] for (day, plan), (head, _) in paper.plans.items() if day == new.day}
    if before.status_by(known) == "rejected" and run_of[known[-1].plan] == run_of[new.plan]:
        assert known[-1].rows > 1, f"rejected, and sent again by the same run: {before} and {new}"
        assert _bad_record(known[-1], before.name), f"rejected, and sent again by the same run: {before} and {new}"


def _bad_record(request: Request, number: str) -> bool:
    """Whether a request was refused as a whole in the way in which an API refuses it for one bad record."""
    result = request.result or {}
    return request.says(number) == "nothing done" and result["whole"].get("code") in ("19734", "O001", "001")


def _part(paper: Paper, number: Number, plan: int) -> tuple[Any, ...] | None:
    """Of what a row is a part: of the refused request that is being divided, or of nothing; None if that is open."""
    one = number
    if number.plan == plan and number.row.get("replaces"):
        one = paper.numbers[number.row["replaces"]]
    known, others = paper.known(one, plan)
    if others:
        return None
    if not known or not _bad_record(known[-1], one.name):
        return ("whole",)
    return ("half", known[-1].plan, known[-1].number, known[-1].rows) if known[-1].rows > 1 else ("alone",)


def _in_halves(batches: dict[int, list[tuple[Any, ...]]]) -> None:
    """No request mixes what is being divided with anything else, and none has more than a half of it."""
    alone = [batch for batch, parts in batches.items() if ("alone",) in parts]
    for batch, parts in batches.items():
        assert len(set(parts)) <= 1, f"a request of several kinds: {parts}"
        for part in parts[:1]:
            assert part[0] != "half" or len(parts) <= -(-part[3] // 2), f"more than a half: {parts}"
            assert part[0] == "alone" or all(batch < other for other in alone), "refused alone, and goes first"


def instant_text(at_ms: int) -> str:
    """An instant as Amlyze gets it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"


def green(ended: list[Ended]) -> bool:
    """Whether one ended without an error, and the others only left it to that one."""
    without = [each for each in ended if each.error is None]
    others = [each.error for each in ended if each.error is not None]
    return bool(without) and all(isinstance(error, SupersededRun) and not error.late for error in others)


def counted(ended: Ended) -> None:
    """A summary counts each balance exactly once, and a green one leaves none out."""
    summary = ended.summary
    if summary is None:
        return
    parts = (
        summary.accepted_now,
        summary.accepted_before,
        summary.seen,
        summary.rejected,
        summary.rejected_locally,
        summary.unknown,
        summary.ignored,
        summary.pending,
    )
    assert min(parts) >= 0, summary
    assert summary.rows == sum(parts), summary
    if ended.error is None:
        assert summary.unknown == summary.pending == summary.rejected == 0, summary
