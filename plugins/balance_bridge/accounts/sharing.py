"""What no two destinations may share, because each would take the other's balances for its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from balance_bridge.accounts.destinations import (
    ASSET_PLACEHOLDER,
    AmlyzeDestination,
    Destination,
    ElvenDestination,
    WebhookDestination,
)
from balance_bridge.accounts.problems import Path, Problem, describe, dotted

_NAMED_OTHERS = 5


@dataclass(frozen=True, eq=False)
class Place:
    """One destination of one account, as it stands in the file.

    Attributes:
        account: The account's name.
        definition: Number of the account in the file; two definitions of one name are told apart by it.
        path: Where the destination stands.
        line: Line of the key that says where it delivers to.
        destination: The destination.
    """

    account: str
    definition: int
    path: Path
    line: int
    destination: Destination


def find_shared(places: list[Place]) -> Iterator[tuple[Place, Problem]]:
    """The problem of each destination that shares with another what must be its own.

    Two Elven destinations may not have the same connection, entity account and source; two Amlyze destinations of one
    connection may not be able to produce the same account id. That holds within an account as well. A webhook's
    requests name account and destination, so any number of them may share a connection.
    """
    others: dict[Place, list[tuple[Place, str]]] = {}
    for one, other, shared in _clashes(places):
        if one.account == other.account and one.definition != other.definition:
            continue  # Two definitions of one account, which is told elsewhere.
        others.setdefault(one, []).append((other, shared))
        others.setdefault(other, []).append((one, shared))
    for place, found in others.items():
        yield place, _problem(place, found)


def _clashes(places: list[Place]) -> Iterator[tuple[Place, Place, str]]:
    sources: dict[tuple[str, str, str], list[Place]] = {}
    tenants: dict[str, list[tuple[Place, _Ids]]] = {}
    for place in places:
        target = place.destination
        if isinstance(target, ElvenDestination):
            sources.setdefault((target.conn_id, target.entity_account_id, target.source_id), []).append(place)
        elif isinstance(target, AmlyzeDestination):
            tenants.setdefault(target.conn_id, []).append((place, _Ids.of(target.account_ext_id)))
    for same in sources.values():
        for one, other in combinations(same, 2):
            yield one, other, "the same Elven connection, entity account and source"
    for tenant in tenants.values():
        for (one, ids), (other, other_ids) in combinations(tenant, 2):
            shared = ids.shared(other_ids)
            if shared is not None:
                yield one, other, f"the same Amlyze account id, such as {describe(shared)},"


@dataclass(frozen=True)
class _Ids:
    """The account ids that a destination can produce: a list, or all that begin and end in a certain way."""

    listed: frozenset[str] | None
    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, account_ext_id: str | dict[str, str]) -> _Ids:
        if isinstance(account_ext_id, dict):
            return cls(frozenset(account_ext_id.values()))
        before, _, after = account_ext_id.partition(ASSET_PLACEHOLDER)
        return cls(None, before, after)

    def shared(self, other: _Ids) -> str | None:
        """An id that both can produce, None if there is none."""
        if self.listed is not None and other.listed is not None:
            return min(self.listed & other.listed, default=None)
        if self.listed is not None:
            return min((name for name in self.listed if other._produces(name)), default=None)
        if other.listed is not None:
            return other.shared(self)
        before, after = sorted((self.before, other.before), key=len), sorted((self.after, other.after), key=len)
        if before[1].startswith(before[0]) and after[1].endswith(after[0]):
            # An asset's code may hold anything, so the shorter one's asset can always fill the gap.
            return f"{before[1]}BTC{after[1]}"
        return None

    def _produces(self, name: str) -> bool:
        longer = len(name) > len(self.before) + len(self.after)
        return longer and name.startswith(self.before) and name.endswith(self.after)


def _problem(place: Place, found: list[tuple[Place, str]]) -> Problem:
    named = [
        f"{shared} as account {other.account} (line {other.line}, {dotted(other.path)})"
        for other, shared in found[:_NAMED_OTHERS]
    ]
    more = f" and {len(found) - _NAMED_OTHERS} more" if len(found) > _NAMED_OTHERS else ""
    fault = f"delivers to {'; '.join(named)}{more}"
    target = place.destination
    if isinstance(target, ElvenDestination):
        allowed = "a source of its own for each destination"
        return Problem(place.line, (*place.path, "source_id"), describe(target.source_id), fault, allowed)
    if isinstance(target, WebhookDestination):
        raise TypeError("a webhook's requests name account and destination: there is nothing to share")
    allowed = "account ids that no other destination with this connection can produce"
    return Problem(place.line, (*place.path, "account_ext_id"), describe(target.account_ext_id), fault, allowed)
