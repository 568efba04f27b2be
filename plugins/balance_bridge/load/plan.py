"""The decision: what to do with every balance of a day, given what the log says.

=========================================================== =========================================================
what the log says about the balance                         what is done
=========================================================== =========================================================
nothing may have arrived                                    sent, under its next number
the same amount is held, settled                            kept
the same amount is held, unknown                            the very same record again, under the same number
another amount is held, or may have come after it           sent under the next number, which names the one before
the same amount was delivered under another key             kept, reported; with ``redeliver`` sent under the new key
the same amount was settled with other settings             kept, reported; with ``redeliver`` sent again
=========================================================== =========================================================

A rejected number is used up. The balance goes again when the run is repeated (cleared, or triggered); within one run,
its retries by Airflow included, only if its request was refused as a whole for a bad record, and is divided.

What was delivered under another key stays there only as long as nothing else takes that key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from balance_bridge.errors import ConfigurationError, InvalidAmount
from balance_bridge.load.destination import Destination, content
from balance_bridge.load.documents import Action, Plan, Result, Row, Said
from balance_bridge.load.fold import SETTLED, Attempt, Folded
from balance_bridge.load.numbers import MAX_NUMBER_CHARS, communication_number, rfc3339

#: Why an earlier delivery is kept although the accounts file says otherwise now.
OTHER_KEY, OTHER_SETTINGS = "delivered under another key", "delivered with other settings"

#: What a request is made of: rows that go out together, and never with others.
Group = tuple[int, ...]
_FRESH, _ALONE = (0,), (-1,)


@dataclass
class Decider:
    """Decides about the balances of one day.

    Args:
        destination: Where to.
        prefix: What its communication numbers begin with.
        folded: The log.
        run_id: The run that decides.
        redeliver: Whether to send again what was delivered under other keys or settings.
        kept: The rows of this run's plan before that stay as they are, where the other ones' requests are divided.
    """

    destination: Destination
    prefix: str
    folded: Folded
    run_id: str = ""
    redeliver: bool = False
    kept: Iterable[Row] = ()

    def decide(self, due: Iterable[Row]) -> tuple[list[Row], dict[int, bytes]]:
        """Decide.

        Args:
            due: As :meth:`Destination.prepare` makes them.

        Returns:
            The rows of the next plan, in order of instant and asset, and the body of each of its requests.
        """
        due = sorted(due, key=lambda row: (row.at_ms, row.asset))
        before = {row.balance: row for row in self.kept}
        self._halves = halves(self.folded, self.destination.bisect_codes)
        rows = [self._row(row, before.get(row.balance)) if row.action is Action.SEND else row for row in due]
        self._give_up_keys(due, rows)
        return self._batched(rows)

    def _row(self, due: Row, before: Row | None) -> Row:
        if before is not None:
            return before if before.action is Action.REJECT else _kept(before, before.points, before.text)
        held = self.folded.last_arrived(due.balance)
        if held is not None:
            differs = _difference(held, due)
            changed = held.row.amount != due.amount or (differs != "" and self.redeliver)
            if not changed and self.folded.is_certain(held):
                if held.outcome.status in SETTLED:
                    return _kept(held.row, due.points, differs)
                # The very same record, under the same number, whatever the settings are by now.
                return msgspec.structs.replace(held.row, points=due.points, batch=0, text=differs)
        return self._under_new_number(due, held)

    def _under_new_number(self, due: Row, held: Attempt | None) -> Row:
        """The balance under its next number; what this very run had rejected stays so, unless it is being divided."""
        attempts = self.folded.balances.get(due.balance, [])
        last = next((each for each in reversed(attempts) if each.tries), None)
        if last is None or last.arrived or self._halves.get(last.row.number, _ALONE) != _ALONE:
            return self._next(due, held)
        same_run = self.folded.events.plans[last.tries[-1][0]].run_id == self.run_id
        return _kept(last.row, due.points) if same_run else self._next(due, held)

    def _give_up_keys(self, due: Sequence[Row], rows: list[Row]) -> None:
        """Send under its new key what is held under an old one, if something else is about to take that key."""
        lost = [0]
        while lost:
            sent = Counter(row.key for row in rows if row.action is Action.SEND)
            lost = [
                index
                for index, row in enumerate(rows)
                if row.text == OTHER_KEY and sent[row.key] > (row.action is Action.SEND)
            ]
            for index in lost:
                rows[index] = self._under_new_number(due[index], self.folded.last_arrived(due[index].balance))

    def _next(self, due: Row, held: Attempt | None) -> Row:
        """The balance under its next number; that of a plan that never sent it is free, if it says the very same."""
        attempts = self.folded.balances.get(due.balance, [])
        if attempts and not attempts[-1].tries:
            unsent = attempts[-1].row
            row = self._numbered(due, held, attempts[:-1])
            if (row.number, row.key, row.wire) == (unsent.number, unsent.key, unsent.wire):
                return row
        return self._numbered(due, held, attempts)

    def _numbered(self, due: Row, held: Attempt | None, attempts: Sequence[Attempt]) -> Row:
        number = communication_number(self.prefix, due.asset, due.at_ms, len(attempts) + 1)
        if len(number) > MAX_NUMBER_CHARS:
            return _rejected(
                due,
                f"its communication number would have {len(number)} characters, {MAX_NUMBER_CHARS} are allowed: "
                f"shorten the account's or the destination's name",
            )
        replaces = next((each.row.number for each in reversed(attempts) if each.tries), "")
        supersedes = self._superseded(attempts, held)
        row = msgspec.structs.replace(due, number=number, replaces=replaces, supersedes=supersedes)
        return msgspec.structs.replace(row, wire=self.destination.numbered(row))

    def _superseded(self, attempts: Sequence[Attempt], held: Attempt | None) -> str:
        """The amount that the destination is known to hold and that gives way."""
        if held is None:
            return ""
        late = self.folded.late.get(held.row.key)
        settled = [each for each in attempts if each.outcome.status in SETTLED]
        if late is not None:
            settled = [each for each in settled if each.row.amount != held.row.amount]
        return max(settled, key=lambda each: each.tries[-1]).row.amount if settled else ""

    def _batched(self, rows: list[Row]) -> tuple[list[Row], dict[int, bytes]]:
        """Give each row that is sent its batch, or find that it cannot be sent."""
        start, end = self.destination.envelope
        most = self.destination.max_bytes - len(start) - len(end)
        texts: dict[int, bytes] = {}
        groups: dict[Group, list[int]] = {}
        for index, row in enumerate(rows):
            if row.action is not Action.SEND:
                continue
            text, problem = self._text(row, most)
            if problem:
                rows[index] = _rejected(row, problem)
                continue
            texts[index] = text
            groups.setdefault(self._group(row), []).append(index)
        bodies: dict[int, bytes] = {}
        # What may have been sent before goes first, in the requests that it was in.
        for group in sorted(groups, reverse=True):
            for taken in _packed(groups[group], texts, most, self.destination.max_rows):
                batch = len(bodies) + 1
                bodies[batch] = start + b",".join(texts.pop(index) for index in taken) + end
                for index in taken:
                    rows[index] = msgspec.structs.replace(rows[index], batch=batch)
        return rows, bodies

    def _text(self, row: Row, most: int) -> tuple[bytes, str]:
        """A row's JSON text, and why it cannot be sent; empty if it can."""
        try:
            text = self.destination.encode_row(row.wire)
        except InvalidAmount as error:
            return b"", str(error)
        # What may have arrived goes again as it was, whatever the limits are by now.
        if len(text) > most and row.number not in self.folded.numbers:
            return b"", f"a request with this record alone exceeds max_bytes ({self.destination.max_bytes}); raise it"
        return text, ""

    def _group(self, row: Row) -> Group:
        before = self.folded.numbers.get(row.number)
        part = self._halves.get(row.number if before is not None else row.replaces)
        if part is not None:
            return part
        return (1, -before.batch[0], -before.batch[1]) if before is not None else _FRESH


def refuse_shared_keys(destination: Destination, rows: Iterable[Row]) -> None:
    """Refuse two balances that the destination could not tell apart.

    Raises:
        ConfigurationError: Naming both.
    """
    owners: dict[str, Row] = {}
    for row in rows:
        other = owners.setdefault(row.key, row)
        if other is not row and row.action is Action.SEND:
            both = " and ".join(f"{each.asset} at {rfc3339(each.at_ms)}" for each in (other, row))
            raise ConfigurationError(
                f"{destination.name}: {both} have one key",
                why=f"Both become {row.key}, and {destination.kind} holds one balance under a key",
                do="Map the assets to different ones in the accounts file, or set one of them to ignore",
            )


def halves(folded: Folded, bisect_codes: frozenset[str]) -> dict[str, Group]:
    """Where the records of requests that were refused as a whole for a bad record go next: each half for itself.

    It follows from the log alone, so a run goes on dividing where another one has stopped.

    Args:
        folded: The log.
        bisect_codes: The destination's codes for a bad record.

    Returns:
        By number; those that were refused alone go together, behind everything else.
    """
    events = folded.events
    groups: dict[str, Group] = {}
    for (plan, number), result in events.results.items():
        if not refuses_bad_record(result, bisect_codes):
            continue
        batch = events.tries[plan, number].batch
        rows = events.plans[plan].batches()[batch]
        for index, row in enumerate(rows):
            attempt = folded.numbers[row.number]
            if attempt.tries[-1] == (plan, number) and row.number not in result.records:
                groups[row.number] = (1, -plan, -batch, -(2 * index // len(rows))) if len(rows) > 1 else _ALONE
    return groups


def refuses_bad_record(result: Result, bisect_codes: frozenset[str]) -> bool:
    """Whether a request was refused as a whole with one of the codes for a bad record."""
    whole = result.whole
    return whole is not None and whole.said is Said.REJECTED and whole.code in bisect_codes


def decides_the_same(plan: Plan, other: Plan) -> bool:
    """Whether two plans of the same balances decide the same for each, apart from what is left to be sent."""
    same = (plan.generation, plan.so_far) == (other.generation, other.so_far)
    return same and list(map(_decision, plan.rows)) == list(map(_decision, other.rows))


def _decision(row: Row) -> tuple[str, int, str, str, str]:
    action = Action.KEEP if row.action is Action.SEND else row.action
    return row.asset, row.at_ms, row.number, action, "" if action is Action.KEEP and not row.text else row.text


def _packed(indexes: list[int], texts: Mapping[int, bytes], max_bytes: int, max_rows: int) -> Iterator[list[int]]:
    """Divide rows into batches: in order, none lost, none doubled, no limit exceeded."""
    taken: list[int] = []
    size = 0
    for index in indexes:
        length = len(texts[index])
        # A comma before each but the first.
        if taken and (len(taken) == max_rows or size + 1 + length > max_bytes):
            yield taken
            taken, size = [], 0
        size += length + bool(taken)
        taken.append(index)
    if taken:
        yield taken


def _difference(held: Attempt, due: Row) -> str:
    """How what was delivered differs from what is due, apart from its amount; empty if it does not."""
    if held.row.key != due.key:
        return OTHER_KEY
    return "" if content(held.row.wire) == content(due.wire) else OTHER_SETTINGS


def _kept(row: Row, points: str, text: str = "") -> Row:
    return Row(row.asset, row.at_ms, row.amount, points, Action.KEEP, row.number, row.key, text=text)


def _rejected(row: Row, text: str) -> Row:
    return Row(row.asset, row.at_ms, row.amount, row.points, Action.REJECT, text=text)
