"""``balance-bridge approve``, ``receipts resolve``, ``adopt`` and ``rekey``: what people decide, on record."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from balance_bridge import decisions, index, manual, settings
from balance_bridge.commands.arguments import Author, choose, choose_accounts, today
from balance_bridge.commands.deliveries import delivered_to
from balance_bridge.commands.output import printable
from balance_bridge.days import parse_day
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import ConfigurationError
from balance_bridge.explanation import explain
from balance_bridge.load.documents import Said
from balance_bridge.load.place import Place, Places

_FROM_RECEIPTS = "Make it with balance-bridge receipts ACCOUNT DATE --outcome unknown -o csv, and fill in the outcomes"


def resolve(
    account: str, day: date, *, destination: str, numbers: Sequence[str] | None, said: str, author: Author
) -> int:
    """Record what a person found out about balances whose outcome nobody has confirmed.

    Raises:
        ConfigurationError: If there is nothing to resolve, or a request may still be under way.
    """
    store = settings.open_store()
    (name,) = delivered_to(store, account, [day], [destination])
    found = manual.Found(name, numbers, Said(said), author.by, author.reason)
    count, key = manual.resolve(store, account, day, found)
    index.record(store, account, day)
    print(f"{count} {said}, written to {store.describe(key)}")
    if said == Said.REJECTED:
        print("Run the day again: these balances go out under new numbers.")
    return 0


def resolve_file(file: Path, *, author: Author) -> int:
    """Record what a person found out about many balances: the CSV of ``receipts``, with the outcomes filled in.

    Raises:
        ConfigurationError: If a row is wrong, or not about a balance that nobody has confirmed. Then nothing of the
            file is recorded.
    """
    store, groups = settings.open_store(), _read_outcomes(file)
    for (account, day, name, said), numbers in groups.items():
        # First all of them: what is recorded stays.
        manual.check_unconfirmed(store, account, day, manual.Found(name, numbers, said, author.by, author.reason))
    for (account, day, name, said), numbers in groups.items():
        found = manual.Found(name, numbers, said, author.by, author.reason)
        count, key = manual.resolve(store, account, day, found)
        index.record(store, account, day)
        print(f"{account} {day} to {name}: {count} {said}, written to {store.describe(key)}")
    if not groups:
        print(f"{file}: no row says accepted or rejected, so nothing was recorded")
    return 0


def _read_outcomes(file: Path) -> dict[tuple[str, date, str, Said], list[str]]:
    """The numbers of a CSV file that was accepted or rejected, by account, day, destination and outcome."""
    wanted = ("account", "day", "destination", "number", "outcome")
    groups: dict[tuple[str, date, str, Said], list[str]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in wanted if name not in (rows.fieldnames or ())]
            if missing:
                raise ConfigurationError(f"{file} has no column {', '.join(missing)}", do=_FROM_RECEIPTS)
            for row in rows:
                if row["outcome"] in (Said.ACCEPTED, Said.REJECTED):
                    place = (row["account"], parse_day(row["day"]), row["destination"], Said(row["outcome"]))
                    groups.setdefault(place, []).append(row["number"])
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError(f"{file} cannot be read", why=str(error), do=_FROM_RECEIPTS) from error
    return groups


def approve(account: str, day: date, *, refuse: bool, author: Author) -> int:
    """Record whether a day may be delivered although it does not add up; after an approval, run it.

    Raises:
        ConfigurationError: If there is nothing to decide, or Airflow cannot be asked to run the day.
    """
    store, (config,) = settings.open_store(), choose_accounts([account])
    proof = manual.open_question(store, config, day)
    for sentence in explain(store, config, day, today())[1]:
        print(printable(sentence))
    act = Act.REFUSED if refuse else Act.APPROVED
    manual.decide(store, config, day, Decision(act, author.by, decisions.now(), author.reason, proof=proof))
    print(printable(f"{account} {day}: {act} by {author.by}, on record."))
    if not refuse:
        print(f"Its run {manual.start_run(store, account, day, Act.RERUN, author.by)} delivers it.")
    return 0


def adopt(account: str, *, destination: str, author: Author) -> int:
    """Record that a destination only changed its address, or that it delivers in another one's stead.

    Raises:
        PlaceChanged: If there is nothing to adopt.
    """
    places, before = _places(account, destination)
    now, others = places.adopt(author.by, author.reason)
    for there, owner in others.items():
        print(printable(f"{there} belongs to {destination} of {account} now, no longer to {owner.name}."))
    if others:
        print("Days that were delivered there before are delivered again if they are run.")
    if others and (before is None or before.leads_to == now.leads_to):
        return 0
    return _show(destination, before.leads_to if before else {}, now.leads_to, "; the next run goes on from there")


def rekey(account: str, *, destination: str, author: Author) -> int:
    """Record that what was delivered under other key settings counts as delivered; otherwise like :func:`adopt`."""
    places, before = _places(account, destination)
    now = places.rekey(author.by, author.reason)
    return _show(destination, before.key_settings if before else {}, now.key_settings, " and stays as it is")


def _places(account: str, destination: str) -> tuple[Places, Place | None]:
    """Where a destination leads and led, and what the log has of it so far."""
    from balance_bridge.hooks.destinations import open_destination

    (found,) = choose_accounts([account])
    (name,) = choose(f"{account} has no destination", [destination], found.destinations)
    places = Places(settings.open_store(), account, open_destination(found.destinations[name], account))
    return places, places.newest()


def _show(destination: str, before: dict[str, str], now: dict[str, str], rest: str) -> int:
    print(f"{destination} has changed:")
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            print(printable(f"  {name}: from {before.get(name, 'not set')} to {now.get(name, 'not set')}"))
    print(f"What was delivered before counts as delivered{rest}.")
    return 0
