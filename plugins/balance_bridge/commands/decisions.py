"""``balance-bridge receipts resolve``, ``adopt`` and ``rekey``: what people decide about deliveries, on record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime

from balance_bridge import settings
from balance_bridge.accounts.problems import did_you_mean
from balance_bridge.commands.arguments import Decision, UsageError, choose, choose_accounts
from balance_bridge.commands.deliveries import delivered_to
from balance_bridge.commands.output import printable
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.audit import unconfirmed
from balance_bridge.load.documents import Resolution, Said, Word
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog, time_text
from balance_bridge.load.place import Place, Places


def resolve(
    account: str, day: date, *, destination: str, numbers: Sequence[str] | None, said: str, decision: Decision
) -> int:
    """Record what a person found out about balances whose outcome nobody has confirmed.

    Raises:
        ConfigurationError: If there is nothing to resolve, or a request may still be under way.
    """
    store, now_s = settings.open_store(), datetime.now(UTC).timestamp()
    (name,) = delivered_to(store, account, [day], [destination])
    log = DayLog(store, account, day, name)
    events = log.read()
    left_s = max((made.left_s(now_s) for at, made in events.tries.items() if at not in events.results), default=0.0)
    if left_s > 0:
        # What a person has found out would be about less than what may still arrive.
        raise ConfigurationError(
            f"{account} {day} to {name}: a request may still be under way", do=f"try again in {math.ceil(left_s)} s"
        )
    open_numbers = unconfirmed(fold(events))
    if not open_numbers:
        raise ConfigurationError(f"{account} {day} to {name}: there is nothing to resolve, every outcome is confirmed")
    wanted = open_numbers if numbers is None else list(dict.fromkeys(numbers))
    for number in wanted:
        if number not in open_numbers:
            raise UsageError(
                f"{number} is not among the numbers of {account} {day} to {name} that are not confirmed"
                f"{did_you_mean(number, open_numbers)}",
                do=f"these are: {', '.join(open_numbers)}",
            )
    word = Word(Said(said), text=f"{decision.by}: {decision.reason}")
    key = log.put_resolution(
        Resolution(decision.by, decision.reason, time_text(now_s), {number: word for number in wanted})
    )
    print(f"{len(wanted)} {said}, written to {store.describe(key)}")
    if said == Said.REJECTED:
        print("Run the day again: these balances go out under new numbers.")
    return 0


def adopt(account: str, *, destination: str, decision: Decision) -> int:
    """Record that a destination only changed its address, or that it delivers in another one's stead.

    Raises:
        PlaceChanged: If there is nothing to adopt.
    """
    places, before = _places(account, destination)
    now, others = places.adopt(decision.by, decision.reason)
    for there, owner in others.items():
        print(printable(f"{there} belongs to {destination} of {account} now, no longer to {owner.name}."))
    if others:
        print("Days that were delivered there before are delivered again if they are run.")
    if others and (before is None or before.leads_to == now.leads_to):
        return 0
    return _show(destination, before.leads_to if before else {}, now.leads_to, "; the next run goes on from there")


def rekey(account: str, *, destination: str, decision: Decision) -> int:
    """Record that what was delivered under other key settings counts as delivered; otherwise like :func:`adopt`."""
    places, before = _places(account, destination)
    now = places.rekey(decision.by, decision.reason)
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
