"""``balance-bridge receipts``: what was sent, when, by which run, and how it ended; and what people decided since."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import Account, load_accounts
from balance_bridge.commands.terminal import WIDE, cell, printable, shown, wide_console
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.audit import SUPERSEDED, Entry, entries, unconfirmed
from balance_bridge.load.fold import LOCAL, Status, fold
from balance_bridge.load.log import VERSION, DayLog, Resolution, destinations_with_logs, time_text
from balance_bridge.load.place import Places
from balance_bridge.load.replies import Said, Word
from balance_bridge.store import Store

OUTCOMES = (*Status, SUPERSEDED)
# Assets that are named for a reason.
_EXAMPLES = 5
_COLOURS = {"accepted": "green", "rejected": "red", "seen": "yellow", "unknown": "yellow", "planned": "yellow"}
# They are amounts: a minus in front of them is theirs.
_AMOUNTS = ("amount", "supersedes")


@dataclass(frozen=True)
class Decision:
    """Who decided something, and why; it stays in the store.

    Attributes:
        by: Who.
        reason: Why, or how it was found out.

    Raises:
        ConfigurationError: If one of them is empty.
    """

    by: str
    reason: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.reason.strip():
            raise ConfigurationError("--by and --reason must not be empty: they stay in the store, for an auditor")


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
        outcome: Only attempts that ended so; a rejection only if no later attempt has replaced it.
        csv_file: Write all columns there instead of showing some.
        as_json: All columns as JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If there is no such outcome, or the account has no such destination.
        StoreDamaged: If part of a log cannot be read.
    """
    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigurationError(f"--outcome {outcome!r}: there is no such outcome; allowed: {', '.join(OUTCOMES)}")
    store = settings.open_store()
    found = [
        entry
        for name in _destinations(store, account, day, destination)
        for entry in entries(fold(DayLog(store, account, day, name).read()), name)
        if outcome is None or (entry.outcome == outcome and not _is_replaced(entry))
    ]
    if csv_file is not None:
        _write_csv(csv_file, found)
        print(f"{len(found)} rows written to {csv_file}")
    elif as_json:
        print(json.dumps([_plain(entry) for entry in found], indent=1))
    else:
        _print(account, day, found, with_ignored=outcome == Status.IGNORED)
    return 0


def resolve(
    account: str, day: date, *, destination: str, numbers: Sequence[str] | None, said: Said, decision: Decision
) -> int:
    """Write down what a person found out about balances whose outcome nobody has confirmed.

    Args:
        account: The account's name.
        day: The UTC day.
        destination: The destination's name.
        numbers: The communication numbers; None for all that are not confirmed.
        said: ``accepted`` or ``rejected``.
        decision: Who found it out, and how.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If a number is not one of those that are not confirmed, or a request may still be under way.
    """
    store, now_s = settings.open_store(), datetime.now(UTC).timestamp()
    (name,) = _destinations(store, account, day, destination)
    log = DayLog(store, account, day, name)
    events = log.read()
    left_s = max((made.left_s(now_s) for at, made in events.tries.items() if at not in events.results), default=0.0)
    if left_s > 0:
        # What a person has found out would be about less than what may still arrive.
        raise ConfigurationError(
            f"{account} {day} to {name}: a request may still be under way: try again in {math.ceil(left_s)} s"
        )
    open_numbers = unconfirmed(fold(events))
    wanted = open_numbers if numbers is None else list(dict.fromkeys(numbers))
    strange = [number for number in wanted if number not in open_numbers]
    if strange or not wanted:
        named = ", ".join(map(printable, strange)) or "nothing"
        raise ConfigurationError(
            f"{named} is to be resolved; of {account} {day} at {name} these are not confirmed: "
            f"{', '.join(open_numbers) or 'none'}"
        )
    word = Word(said, text=f"{decision.by}: {decision.reason}")
    key = log.put_resolution(
        Resolution(VERSION, decision.by, decision.reason, time_text(now_s), {number: word for number in wanted})
    )
    print(f"{len(wanted)} {said}, written to {store.describe(key)}")
    if said is Said.REJECTED:
        print("Run the day again: these balances go out under new numbers.")
    return 0


def adopt(account: str, *, destination: str, decision: Decision) -> int:
    """Write down that a destination only changed its address.

    Args:
        account: The account's name.
        destination: The destination's name.
        decision: Who says so, and why.

    Returns:
        The exit code.

    Raises:
        PlaceChanged: If there is nothing to adopt.
    """
    places = _places(account, destination)
    before, now = places.newest(), places.adopt(decision.by, decision.reason)
    print(f"{destination} of {account} leads to another address:")
    _print_changes(before.leads_to if before else {}, now.leads_to)
    print("What was delivered under the old address counts as delivered; the next run goes on from there.")
    return 0


def rekey(account: str, *, destination: str, decision: Decision) -> int:
    """Write down that what was delivered under other key settings counts as delivered.

    Args:
        account: The account's name.
        destination: The destination's name.
        decision: Who says so, and why.

    Returns:
        The exit code.

    Raises:
        PlaceChanged: If the settings are those of before.
    """
    places = _places(account, destination)
    before, now = places.newest(), places.rekey(decision.by, decision.reason)
    print(f"{destination} of {account} makes its keys with other settings:")
    _print_changes(before.key_settings if before else {}, now.key_settings)
    print("What was delivered under the old settings counts as delivered and stays as it is.")
    return 0


def configured(account: str, destination: str | None = None) -> Account:
    """An account as the accounts file has it.

    Args:
        account: Its name.
        destination: One of its destinations, if it must have that one.

    Raises:
        ConfigurationError: If there is no such account or destination.
    """
    file = load_accounts(settings.accounts_file())
    if account not in file.accounts:
        wrong = ": it is wrong in the accounts file, see balance-bridge check" if account in file.broken else ""
        raise ConfigurationError(f"there is no usable account {account!r}{wrong}; there are {', '.join(file.accounts)}")
    found = file.accounts[account]
    if destination is not None and destination not in found.destinations:
        raise ConfigurationError(
            f"{account} has no destination {destination!r}; it has {', '.join(found.destinations)}"
        )
    return found


def _places(account: str, destination: str) -> Places:
    from balance_bridge.hooks.destinations import open_destination

    config = configured(account, destination).destinations[destination]
    return Places(settings.open_store(), account, open_destination(config, account))


def _print_changes(before: dict[str, str], now: dict[str, str]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            print(printable(f"  {name}: from {before.get(name, 'not set')} to {now.get(name, 'not set')}"))


def _destinations(store: Store, account: str, day: date, wanted: str | None) -> list[str]:
    """Those that have a log of the day, and those of the accounts file: a destination may have left it since."""
    of_account = load_accounts(settings.accounts_file()).accounts.get(account)
    known = {*destinations_with_logs(store, account, day), *(of_account.destinations if of_account else ())}
    if wanted is not None and wanted not in known:
        raise ConfigurationError(
            f"{account} has no destination {wanted!r}; it has {', '.join(sorted(known)) or 'none'}"
        )
    if not known:
        raise ConfigurationError(f"there is no account {account!r}, neither in the accounts file nor in the store")
    return [wanted] if wanted is not None else sorted(known)


def _short(instant: str) -> str:
    """An instant without what says nothing in a table."""
    return instant.replace("T", " ").replace("Z", "").removesuffix(".000")


def _plain(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "amount": format(entry.amount, "f")}


def _write_csv(path: Path, found: Iterable[Entry]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(Entry)])
            writer.writeheader()
            for entry in found:
                row = _plain(entry).items()
                writer.writerow(
                    {
                        name: cell(value) if isinstance(value, str) and name not in _AMOUNTS else value
                        for name, value in row
                    }
                )
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror or error})") from error


def _print(account: str, day: date, found: Sequence[Entry], *, with_ignored: bool) -> None:
    console = wide_console()
    if not found:
        console.print(shown(f"{account} {day}: there are no such receipts"))
        return
    # What the accounts file leaves out is no attempt: there may be much of it, and it has a line of its own.
    rows = [entry for entry in found if with_ignored or entry.outcome != Status.IGNORED]
    console.print(_table(shown(f"{account} {day}: every attempt to deliver"), rows, wide=console.width >= WIDE))
    for line in _counts(found):
        console.print(line)
    for line in (*_reasons(found), *_ignored(found)):
        console.print(shown(line), soft_wrap=True)


def _table(title: str, rows: Sequence[Entry], *, wide: bool) -> Table:
    """On a narrow terminal without the numbers and what follows from them; CSV and JSON have all."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in ("destination", "asset", "at (UTC)", "balance", "outcome", *(("number", "sent at") if wide else ())):
        table.add_column(name, justify="right" if name == "balance" else "left", no_wrap=wide, overflow="fold")
    table.add_column("reason", overflow="fold")
    for entry in rows:
        balance = f"{entry.amount:f}" + (f" instead of {entry.supersedes}" if entry.supersedes else "")
        colour = _COLOURS.get(entry.outcome, "dim") if entry.current else "dim"
        outcome = f"[{colour}]{entry.outcome}{'' if entry.current else ' (earlier)'}[/]"
        rest = [*((entry.number, _short(entry.sent_at)) if wide else ()), f"{entry.code} {entry.text}".strip()]
        left = (entry.destination, entry.asset, _short(entry.at), balance)
        table.add_row(*map(shown, left), outcome, *map(shown, rest))
    return table


def _counts(found: Sequence[Entry]) -> Iterator[str]:
    """What became of the balances, each counted once; and the attempts that came before."""
    for is_current, what in ((True, ""), (False, "earlier attempts: ")):
        counts = Counter(str(entry.outcome) for entry in found if entry.current == is_current)
        if counts:
            yield what + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def _ignored(found: Iterable[Entry]) -> Iterator[str]:
    ignored: dict[str, list[str]] = {}
    for entry in found:
        if entry.outcome == Status.IGNORED:
            ignored.setdefault(entry.destination, []).append(entry.asset)
    for destination, assets in ignored.items():
        yield f"{destination}: {len(assets)} ignored, as the accounts file says ({_named(assets)})"


def _is_replaced(entry: Entry) -> bool:
    """Whether a rejection is no longer what became of its balance."""
    return entry.outcome == Status.REJECTED and not entry.current


def _reasons(found: Iterable[Entry]) -> Iterator[str]:
    """What was not accepted, by destination, outcome and code, the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in found:
        if entry.current and (entry.code or entry.text):
            # A destination's texts may differ from record to record; our own say what is wrong.
            text = entry.text if entry.code == LOCAL else ""
            groups.setdefault((entry.destination, entry.outcome, entry.code, text), []).append(entry)
    for (destination, outcome, code, _), of_code in sorted(groups.items(), key=lambda item: -len(item[1])):
        named = _named(entry.asset for entry in of_code)
        yield f"{destination}: {len(of_code)} {outcome}, {code or 'no code'} ({named}): {of_code[0].text}"


def _named(assets: Iterable[str]) -> str:
    """Some of the assets, and how many more there are."""
    distinct = list(dict.fromkeys(assets))
    more = f" and {len(distinct) - _EXAMPLES} more" if len(distinct) > _EXAMPLES else ""
    return f"{', '.join(distinct[:_EXAMPLES])}{more}"
