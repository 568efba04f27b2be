"""``balance-bridge receipts``: what was sent, when, by which run, and how it ended; and what people found out since."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, date, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import load_accounts
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.audit import SUPERSEDED, Entry, entries, unresolved
from balance_bridge.load.destination import LOCAL
from balance_bridge.load.outcomes import NOT_SENT, Status
from balance_bridge.load.receipts import Receipts
from balance_bridge.store import Store

OUTCOMES = (*Status, SUPERSEDED)
# Columns from which on a table shows everything.
WIDE = 200
# Assets that are named for a reason.
_EXAMPLES = 5
_COLOURS = {"accepted": "green", "rejected": "red", "seen": "yellow", "unknown": "yellow", "planned": "yellow"}


def show(
    account: str,
    day: date,
    *,
    destination: str | None = None,
    outcome: str | None = None,
    csv_file: Path | None = None,
    as_json: bool = False,
) -> int:
    """Show every attempt to deliver the balances of a day.

    Args:
        account: The account's name.
        day: The UTC day.
        destination: Only this one.
        outcome: Only attempts that ended so; of those that were rejected, the ones that no later attempt has replaced.
        csv_file: Write all columns there instead of showing some.
        as_json: All columns as JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If there is no such outcome, or the account has no such destination.
    """
    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigurationError(f"--outcome {outcome}: there is none of that name; allowed: {', '.join(OUTCOMES)}")
    store = settings.open_store()
    names = _destinations(store, account, day, destination)
    found = [
        entry
        for name in names
        for entry in entries(store, account, day, name)
        if outcome is None or (entry.outcome == outcome and not _is_over(entry))
    ]
    if csv_file is not None:
        _write_csv(csv_file, found)
        print(f"{len(found)} attempts written to {csv_file}")
    elif as_json:
        print(json.dumps([_plain(entry) for entry in found], indent=1))
    else:
        _print(account, day, found)
        for name in names if outcome is None else ():
            ignored = Receipts(store, account, name).ignored(day)
            if ignored:
                print(f"{name}: {sum(ignored.values())} ignored, as the accounts file says ({', '.join(ignored)})")
    return 0


def resolve(
    account: str,
    day: date,
    *,
    destination: str,
    numbers: Sequence[str],
    everything: bool,
    status: Status,
    by: str,
    reason: str,
) -> int:
    """Write down what a person found out about balances whose outcome nobody has confirmed.

    Args:
        account: The account's name.
        day: The UTC day.
        destination: The destination's name.
        numbers: The communication numbers.
        everything: All that are not confirmed, instead.
        status: ``accepted`` or ``rejected``.
        by: Who found it out.
        reason: How.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If a number is not one of those that are not confirmed, or who and how are not told.
    """
    if not by.strip() or not reason.strip():
        raise ConfigurationError("--by and --reason must say who found it out, and how: they stay on the receipt")
    store = settings.open_store()
    (name,) = _destinations(store, account, day, destination)
    open_numbers = {number: batch for batch, number in unresolved(store, account, day, name)}
    wanted = list(open_numbers) if everything else list(dict.fromkeys(numbers))
    strange = [number for number in wanted if number not in open_numbers]
    if strange or not wanted:
        listed = ", ".join(open_numbers) or "none"
        raise ConfigurationError(
            f"{', '.join(strange) or 'nothing'} is to be resolved; of {account} {day} at {name} these are not "
            f"confirmed: {listed}"
        )
    receipts = Receipts(store, account, name)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for batch in sorted({open_numbers[number] for number in wanted}):
        of_batch = [number for number in wanted if open_numbers[number] == batch]
        key = receipts.resolve(day, batch, of_batch, status, by=by.strip(), reason=reason.strip(), now_ms=now_ms)
        print(f"{len(of_batch)} {status}, on {store.describe(key)}")
    if status == Status.REJECTED:
        print("Run the day again: what was not taken goes out under new numbers.")
    return 0


def _destinations(store: Store, account: str, day: date, wanted: str | None) -> list[str]:
    """Those that have receipts of the day, and those of the accounts file: a destination may have left it since."""
    prefix = f"receipts/{account}/{day}"
    stored = {key.removeprefix(f"{prefix}/").split("/", 1)[0] for key in store.list(prefix)}
    configured = load_accounts(settings.accounts_file()).accounts.get(account)
    known = sorted(stored.union(configured.destinations if configured else ()))
    if wanted is not None and wanted not in known:
        raise ConfigurationError(f"{account} has no destination {wanted!r}; it has {', '.join(known) or 'none'}")
    if not known:
        raise ConfigurationError(f"there is no account {account!r}, neither in the accounts file nor in the store")
    return [wanted] if wanted is not None else known


def _short(instant: str) -> str:
    """An instant without what says nothing in a table."""
    return instant.replace("T", " ").replace("Z", "").removesuffix(".000")


def _plain(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "amount": format(entry.amount, "f")}


def _write_csv(path: Path, found: Sequence[Entry]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(Entry)])
            writer.writeheader()
            writer.writerows(_plain(entry) for entry in found)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror or error})") from error


def _print(account: str, day: date, found: Sequence[Entry]) -> None:
    console = Console(emoji=False, width=None if sys.stdout.isatty() else WIDE)
    if not found:
        console.print(f"{account} {day}: there are no such receipts")
        return
    table = Table(title=f"{account} {day}: every attempt to deliver", box=box.SIMPLE_HEAD)
    # On a narrow terminal without the numbers and what follows from them; CSV and JSON have all.
    wide = console.width >= WIDE
    for name in ("destination", "asset", "at (UTC)", "balance", "outcome", *(("number", "sent at") if wide else ())):
        table.add_column(name, justify="right" if name == "balance" else "left", no_wrap=wide, overflow="fold")
    table.add_column("reason", overflow="fold")
    for entry in found:
        balance = f"{entry.amount:f}" + (f" instead of {entry.supersedes}" if entry.supersedes else "")
        reason = f"{entry.code} {entry.text}".strip()
        told = [entry.destination, entry.asset, _short(entry.at), balance]
        outcome = f"[{_COLOURS.get(entry.outcome, 'dim')}]{entry.outcome}[/]"
        rest = [*((entry.number, _short(entry.sent_at)) if wide else ()), reason]
        table.add_row(*map(escape, told), outcome, *map(escape, rest))
    console.print(table)
    counts = Counter(entry.outcome for entry in found if not _is_over(entry))
    console.print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    over = sum(map(_is_over, found))
    if over:
        console.print(f"{over} more were rejected or not sent, and replaced by later attempts")
    for line in _reasons(found):
        console.print(escape(line), soft_wrap=True)


def _is_over(entry: Entry) -> bool:
    """Whether a rejection is no longer what became of its balance."""
    return entry.outcome == Status.REJECTED and bool(entry.replaced_by or entry.code == NOT_SENT.code)


def _reasons(found: Sequence[Entry]) -> Iterator[str]:
    """What was not accepted, by destination, outcome and code, the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in found:
        if (entry.code or entry.text) and not _is_over(entry):
            # A destination's texts may differ from record to record; our own say what is wrong.
            text = entry.text if entry.code == LOCAL else ""
            groups.setdefault((entry.destination, entry.outcome, entry.code, text), []).append(entry)
    for (destination, outcome, code, _), of_code in sorted(groups.items(), key=lambda item: -len(item[1])):
        assets = list(dict.fromkeys(entry.asset for entry in of_code))
        more = f" and {len(assets) - _EXAMPLES} more" if len(assets) > _EXAMPLES else ""
        named = f"{', '.join(assets[:_EXAMPLES])}{more}"
        yield f"{destination}: {len(of_code)} {outcome}, {code or 'no code'} ({named}): {of_code[0].text}"
