"""What no two destinations may share, because each would take the other's balances for its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from balance_bridge.accounts.destinations import (
    ASSET_PLACEHOLDER,
    AmlyzeDestination,
    Destination,
    ElvenDestination,
)
from balance_bridge.accounts.problems import describe

Claim = tuple[str, ...]
"""An account's name and where it delivers to, as plain text."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where one destination of one account delivers to.

    Attributes:
        account: The account's name.
        definition: Number of the account in the file; two definitions of one name differ in it.
        destination: The destination.
    """

    account: str
    definition: int
    destination: Destination

    @property
    def key(self) -> str:
        """The key that says where it delivers to."""
        return "source_id" if isinstance(self.destination, ElvenDestination) else "account_ext_id"

    @property
    def claim(self) -> Claim:
        """The account and where it delivers to, to be found again in another version of the file."""
        target = self.destination
        if isinstance(target, ElvenDestination):
            return (self.account, target.type, target.conn_id, target.entity_account_id, target.source_id)
        if isinstance(target, AmlyzeDestination):
            ids = target.account_ext_id
            names = (ids,) if isinstance(ids, str) else sorted(ids.values())
            return (self.account, target.type, target.conn_id, *names)
        return ()


class Clash(NamedTuple):
    """Two places that would mix their balances.

    Attributes:
        first: One of them.
        second: The other.
        shared: What they share.
    """

    first: Place
    second: Place
    shared: str


def find_clashes(places: Iterable[Place]) -> Iterator[Clash]:
    """Each two places that share what must be their own.

    Two Elven destinations may not have the same connection, entity account and source; two Amlyze destinations of one
    connection may not be able to produce the same account id. That holds within an account as well. A webhook's
    requests name account and destination, so any number of them may share a connection.
    """
    sources: dict[tuple[str, str, str], Place] = {}
    tenants: dict[str, list[_Ids]] = {}
    for place in places:
        target = place.destination
        if isinstance(target, ElvenDestination):
            first = sources.setdefault((target.conn_id, target.entity_account_id, target.source_id), place)
            if first is not place:
                yield Clash(first, place, "the same Elven connection, entity account and source")
        elif isinstance(target, AmlyzeDestination):
            tenants.setdefault(target.conn_id, []).extend(_ids(place, target.account_ext_id))
    for ids in tenants.values():
        for one, other, shared in _shared_ids(ids):
            if one.place is not other.place:
                yield Clash(one.place, other.place, f"the same Amlyze account id, such as {describe(shared)},")


class _Ids(NamedTuple):
    """The account ids that begin and end in a certain way, or the one that is ``before``."""

    before: str
    after: str | None
    place: Place


def _ids(place: Place, account_ext_id: str | dict[str, str]) -> Iterator[_Ids]:
    if isinstance(account_ext_id, dict):
        yield from (_Ids(each, None, place) for each in account_ext_id.values())
    else:
        before, _, after = account_ext_id.partition(ASSET_PLACEHOLDER)
        yield _Ids(before, after, place)


def _shared_ids(ids: list[_Ids]) -> Iterator[tuple[_Ids, _Ids, str]]:
    # In order, everything that begins as one of them does comes right behind it: few pairs are looked at.
    ordered = sorted(ids, key=lambda each: each.before)
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if not other.before.startswith(one.before):
                break
            shared = _shared(one, other)
            if shared is not None:
                yield one, other, shared


def _shared(one: _Ids, other: _Ids) -> str | None:
    """An id that both can produce, None if there is none; the other's ``before`` begins with the one's."""
    if one.after is None or other.after is None:
        if one.after is None:
            same = other.after is None and one.before == other.before
        else:
            # Something stands for the asset.
            same = len(other.before) > len(one.before) + len(one.after) and other.before.endswith(one.after)
        return other.before if same else None
    shorter, longer = sorted((one.after, other.after), key=len)
    # An asset's code may hold anything, so the shorter one's asset can always fill the gap.
    return f"{other.before}BTC{longer}" if longer.endswith(shorter) else None
