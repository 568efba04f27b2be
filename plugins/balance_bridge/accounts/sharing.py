"""What no two destinations may share, because each would take the other's balances for its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from balance_bridge.accounts.destinations import (
    ASSET_PLACEHOLDER,
    AmlyzeDestination,
    Destination,
    ElvenDestination,
)
from balance_bridge.accounts.models import Account

Holder = TypeVar("Holder")


def accounts_at(target: Destination) -> list[str]:
    """The accounts at the far side that a destination delivers to: ids, or a pattern of ids with ``{asset}`` in it.

    None for a webhook: its requests name account and destination, so any number of them may share a URL.
    """
    if isinstance(target, ElvenDestination):
        return [f"{target.entity_account_id} {target.source_id}"]
    if isinstance(target, AmlyzeDestination):
        ids = target.account_ext_id
        return [ids] if isinstance(ids, str) else list(ids.values())
    return []


def find_shared(held: Iterable[tuple[str, Holder]]) -> dict[tuple[Holder, Holder], str]:
    """Each two holders that can deliver to one account, with an example of such an account.

    Args:
        held: Accounts of one place, as :func:`accounts_at` returns them, each with who delivers to it.
    """
    found: dict[tuple[Holder, Holder], str] = {}
    # In order, everything that begins as one of them does comes right behind it: few pairs are looked at.
    ordered = sorted(((*account.partition(ASSET_PLACEHOLDER), holder) for account, holder in held), key=lambda x: x[0])
    for index, (begin, is_pattern, end, holder) in enumerate(ordered):
        for other_begin, other_is_pattern, other_end, other in ordered[index + 1 :]:
            if not other_begin.startswith(begin):
                break
            shared = None
            if is_pattern and other_is_pattern:
                shorter, longer = sorted((end, other_end), key=len)
                # An asset's code may hold anything, so the shorter one's asset can always fill the gap.
                shared = f"{other_begin}BTC{longer}" if longer.endswith(shorter) else None
            elif is_pattern:
                # Something stands for the asset.
                fits = len(other_begin) > len(begin) + len(end) and other_begin.endswith(end)
                shared = other_begin if fits else None
            elif not other_is_pattern and begin == other_begin:
                shared = begin
            if shared is not None and holder != other:
                found.setdefault((holder, other), shared)
    return found


def find_clashes(
    accounts: Iterable[Account], address: Callable[[Destination], str] = attrgetter("conn_id")
) -> Iterator[tuple[str, str]]:
    """The accounts with a destination that delivers to where another destination does, each with what is wrong.

    Args:
        accounts: The accounts.
        address: Where a destination's API is; by default, what has the same connection has the same address.
    """
    held: dict[tuple[str, str], list[tuple[str, tuple[str, str]]]] = {}
    for account in accounts:
        for target in account.destinations.values():
            there = held.setdefault((target.type, address(target)), [])
            there += [(each, (target.name, account.name)) for each in accounts_at(target)]
    for there in held.values():
        for (one, (other, name)), shared in find_shared(there).items():
            yield name, f"its destination {other} delivers to {shared!r}, as does {' of '.join(one)}"
