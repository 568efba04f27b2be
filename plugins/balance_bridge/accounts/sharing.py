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
from balance_bridge.accounts.problems import Path, describe

Claim = tuple[str, ...]
"""An account's name and where it delivers to, as plain text."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where one destination of one account delivers to.

    Attributes:
        account: The account's name.
        destination: The destination.
    """

    account: str
    destination: Destination

    @property
    def path(self) -> Path:
        """The key that says where it delivers to."""
        key = {"elven": "source_id", "amlyze": "account_ext_id"}.get(self.destination.type, "conn_id")
        return ("accounts", self.account, "destinations", self.destination.name, key)

    @property
    def value(self) -> object:
        """What stands there."""
        return getattr(self.destination, str(self.path[-1]))

    @property
    def claim(self) -> Claim:
        """The account and where it delivers to, to be found again in another version of the file."""
        target, value = self.destination, self.value
        ids = sorted(value.values()) if isinstance(value, dict) else (str(value),)
        return (self.account, target.type, target.conn_id, getattr(target, "entity_account_id", ""), *ids)


Clash = tuple[Place, Place, str]
"""Two places that would mix their balances, and what they share."""


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
                yield first, place, "the same Elven connection, entity account and source"
        elif isinstance(target, AmlyzeDestination):
            tenants.setdefault(target.conn_id, []).extend(_ids(place, target.account_ext_id))
    for ids in tenants.values():
        for one, other, shared in _shared_ids(ids):
            if one.place is not other.place:
                yield one.place, other.place, f"the same Amlyze account id, such as {describe(shared)},"


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
