"""Where a destination's name leads: a delivery log belongs to one place, and to one way to make keys.

::

    receipts/<account>/places/<destination>/0001.jsonl    where the name leads
    receipts/places/<digest of kind and address>/0001.jsonl    who delivers to which account there

The newest object of each series counts. If the name leads elsewhere now, the log says nothing about the new place; if
another destination delivers there, its log does. In both cases nothing is sent until somebody decides. If the second
series is missing, the places and logs of all destinations say who has delivered to an address.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from balance_bridge.accounts.sharing import accounts_at, find_shared
from balance_bridge.errors import PlaceChanged, StoreDamaged
from balance_bridge.load.destination import Destination
from balance_bridge.load.documents import Document, Kind, decode, encode
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog, days_with_logs
from balance_bridge.store import Store

_SUFFIX = ".jsonl"
# The reason of what a run writes down by itself.
_FIRST = "first delivery"


class Place(Document):
    """Where a destination's name leads.

    Attributes:
        leads_to: Kind, address and account at the far side.
        key_settings: What keys are made with, besides the mapping of assets.
        by: Who decided so: a run, or a person.
        reason: Why.
    """

    leads_to: dict[str, str]
    key_settings: dict[str, str]
    by: str
    reason: str


class Owner(msgspec.Struct, frozen=True):
    """The one destination that delivers to an account at the far side.

    Attributes:
        account: Its account's name.
        destination: Its name.
        by: Who decided so: a run, or a person.
        reason: Why.
    """

    account: str
    destination: str
    by: str
    reason: str

    @property
    def name(self) -> str:
        """The destination with its account, as a message names them."""
        return f"{self.destination} of {self.account}"


class Owners(Document):
    """Who delivers to which account at one address.

    Attributes:
        kind: The destinations' kind.
        url: The address.
        owners: By account at the far side, as :func:`~balance_bridge.accounts.sharing.accounts_at` has it.
    """

    kind: str
    url: str
    owners: dict[str, Owner]


class Places:
    """The places of one destination of an account.

    Args:
        store: The store.
        account: The account's name.
        destination: As the accounts file has it now.
    """

    def __init__(self, store: Store, account: str, destination: Destination) -> None:
        self._store = store
        self._account = account
        self._destination = destination
        self._folder = f"receipts/{account}/places/{destination.name}"
        self._kind, self._url = destination.kind, destination.place()["url"]
        self._shared_folder = _shared_folder(self._kind, self._url)
        self._seen: dict[str, str | None] = {}

    def check(self, run_id: str, *, redeliver: bool = False, dry_run: bool = False) -> None:
        """Refuse to deliver if the name leads elsewhere than before, or to where another destination delivers.

        Also if keys are made with other settings than before.

        Args:
            run_id: The run, which writes down where the name leads if nothing was delivered before.
            redeliver: Whether to go on with other key settings.
            dry_run: Whether nothing may be written.

        Raises:
            PlaceChanged: Naming what differs and what to do. Nothing was sent.
        """
        found, now = self.newest(), self._now(run_id, _FIRST)
        changed = found is None or (found.leads_to, found.key_settings) != (now.leads_to, now.key_settings)
        used = changed and self._was_used()
        if found is None and used:
            raise StoreDamaged(
                f"{self._store.describe(self._folder)} is missing, although {self._name} has delivered before; nothing "
                "was sent",
                do="Put it back from a backup",
            )
        if found is not None and used:
            if found.leads_to != now.leads_to or not redeliver:
                raise self._changed(found, now)
            now = self._now(run_id, "redeliver")
        self._own(run_id, dry_run=dry_run)
        if dry_run or not changed:
            return
        if not self._follow(self._folder, now):
            self.check(run_id, redeliver=redeliver)
            return
        # A run that had looked before this was written may have begun to send to the earlier place.
        if found is not None and not used and self._was_used():
            self._put(found)
            raise self._changed(found, now)
        if found is not None and not used:
            self._leave(found)

    def has_changed(self) -> bool:
        """Whether somebody has written down another place or owner since these were last read."""
        return any(self._store.has_follower(key) for key in self._seen.values() if key is not None)

    def newest(self) -> Place | None:
        """Where the name led last, or None."""
        return self._read(self._folder, Place)

    def adopt(self, by: str, reason: str) -> tuple[Place, dict[str, Owner]]:
        """Write down that what was delivered at an earlier address of the same account counts as delivered here.

        Accounts that another destination delivers to are this one's from now on, and the other one is refused.

        Returns:
            Where the name leads now, and by account who delivered there before.

        Raises:
            PlaceChanged: If there is nothing to adopt.
        """
        found, now = self.newest(), self._now(by, reason)
        has_moved = found is not None and found.leads_to != now.leads_to
        if has_moved or not self._own(by, reason, take_over=True, dry_run=True):
            now = self._carry_on(now, "leads_to")
        others = self._own(by, reason, take_over=True)
        return (self._put(now) if has_moved else now), others

    def rekey(self, by: str, reason: str) -> Place:
        """Write down that what was delivered under other key settings counts as delivered, and stays as it is.

        Raises:
            PlaceChanged: If the settings have not changed, or another destination delivers to where they lead.
        """
        now = self._carry_on(self._now(by, reason), "key_settings")
        # What it claims at another address is for the adoption to decide.
        if now.leads_to == self._destination.place():
            self._own(by, reason)
        return self._put(now)

    def _carry_on(self, now: Place, changed: Literal["leads_to", "key_settings"]) -> Place:
        """One part of the place as it is now, and the other as it was; not yet written."""
        found = self.newest()
        if found is None:
            raise PlaceChanged(f"{self._name} has delivered nothing so far", do="Just run it")
        if getattr(found, changed) == getattr(now, changed):
            what = "leads to the same place as before: there is nothing to adopt"
            if changed == "key_settings":
                what = "makes its keys as before: there is nothing to rekey"
            raise PlaceChanged(f"{self._name} {what}")
        if changed == "leads_to" and not _only_moved(found.leads_to, now.leads_to):
            difference = _difference(found.leads_to, now.leads_to)
            raise PlaceChanged(f"{self._name} is another account now: {difference}", do=_NEW)
        return msgspec.structs.replace(found, by=now.by, reason=now.reason, **{changed: getattr(now, changed)})

    @property
    def _name(self) -> str:
        return f"destination {self._destination.name} of {self._account}"

    def _now(self, by: str, reason: str) -> Place:
        return Place(self._destination.place(), self._destination.key_settings(), by, reason)

    def _own(
        self, by: str, reason: str = _FIRST, *, take_over: bool = False, dry_run: bool = False
    ) -> dict[str, Owner]:
        """Write down that this destination delivers to where its name leads, and refuse if another one does.

        Returns:
            The others that it takes the place of, by account.
        """
        mine = accounts_at(self._destination.config)
        if not mine:
            return {}
        found = self._read(self._shared_folder, Owners)
        owners = self._found_owners() if found is None else found.owners
        me = Owner(self._account, self._destination.name, by, reason)
        theirs = {account: owner for account, owner in owners.items() if owner.name != me.name}
        pairs = find_shared([*((account, "") for account in mine), *((account, account) for account in theirs)])
        others = {account: theirs[account] for pair in pairs if "" in pair for account in pair if account}
        if not take_over:
            self._refuse_used(others)
        left = self._claimed(owners) - set(mine)
        if left and self._was_used():
            left.clear()
        kept = {account: owner for account, owner in owners.items() if account not in others.keys() | left}
        new = kept | {account: me for account in mine if account not in kept}
        if dry_run or new == owners:
            return others
        if not self._follow(self._shared_folder, Owners(self._kind, self._url, new)):
            return self._own(by, reason, take_over=take_over)
        if not take_over:
            # One that had looked before this was written may have begun to deliver.
            try:
                self._refuse_used(others)
            except PlaceChanged:
                before = encode(Owners(self._kind, self._url, owners))
                self._seen[self._shared_folder] = self._store.append(self._shared_folder, _SUFFIX, before)
                raise
        return others

    def _refuse_used(self, others: dict[str, Owner]) -> None:
        """Refuse to deliver to where others deliver, or where a person has said that they shall.

        One under whose name nothing can have arrived is no hindrance.
        """
        for account, owner in others.items():
            if owner.reason != _FIRST or _was_used(self._store, owner.account, owner.destination):
                raise PlaceChanged(
                    f"{self._name} delivers to {account!r}, as does {owner.name}; nothing was sent",
                    why=f"{owner.name} came first ({owner.reason}, by {owner.by})",
                    do=f"Correct the accounts file or the connection; to hand it over: {self._command('adopt')}",
                )

    def _claimed(self, owners: dict[str, Owner]) -> set[str]:
        """The accounts that runs of this destination have claimed."""
        me = self._account, self._destination.name
        return {
            account
            for account, owner in owners.items()
            if (owner.account, owner.destination) == me and owner.reason == _FIRST
        }

    def _leave(self, earlier: Place) -> None:
        """Give back what this destination claimed at an address where it has delivered nothing."""
        folder = _shared_folder(earlier.leads_to["kind"], earlier.leads_to["url"])
        found = self._read(folder, Owners)
        if folder != self._shared_folder and found is not None:
            left = self._claimed(found.owners)
            kept = {account: owner for account, owner in found.owners.items() if account not in left}
            if left and not self._follow(folder, Owners(found.kind, found.url, kept)):
                self._leave(earlier)

    def _found_owners(self) -> dict[str, Owner]:
        """Who else has delivered to this address, by account there, as the places and logs of the store have it."""
        newest: dict[tuple[str, str], str] = {}
        for key in self._store.list("receipts"):
            parts = key.split("/")
            if len(parts) == 5 and parts[2] == "places" and key.endswith(_SUFFIX):
                newest[parts[1], parts[3]] = key
        owners: dict[str, Owner] = {}
        newest.pop((self._account, self._destination.name), None)
        for (account, name), key in newest.items():
            place = decode(self._store.read(key), Place, self._store.describe(key))
            if (place.leads_to["kind"], place.leads_to["url"]) == (self._kind, self._url):
                for day in days_with_logs(self._store, account, name):
                    for attempt in fold(DayLog(self._store, account, day, name).read()).held.values():
                        there = self._destination.account_at(attempt.row.wire)
                        owners.setdefault(there, Owner(account, name, place.by, place.reason))
        return owners

    def _read(self, folder: str, kind: type[Kind]) -> Kind | None:
        """The newest object of a series, or None."""
        self._seen[folder] = key = self._store.newest(folder, _SUFFIX)
        return None if key is None else decode(self._store.read(key), kind, self._store.describe(key))

    def _follow(self, folder: str, document: Place | Owners) -> bool:
        """Write what follows the object that was read last; False if somebody else was faster."""
        seen = self._seen[folder]
        number = 1 if seen is None else 1 + int(seen.rpartition("/")[2].removesuffix(_SUFFIX))
        key = f"{folder}/{number:04}{_SUFFIX}"
        if self._store.put(key, encode(document)):
            self._seen[folder] = key
            return True
        if self._store.newest(folder, _SUFFIX) == seen:
            raise StoreDamaged(f"{self._store.describe(key)} can neither be written nor read; nothing was sent")
        return False

    def _put(self, place: Place) -> Place:
        self._seen[self._folder] = self._store.append(self._folder, _SUFFIX, encode(place))
        return place

    def _was_used(self) -> bool:
        """Whether anything may have arrived under this name."""
        return _was_used(self._store, self._account, self._destination.name)

    def _changed(self, found: Place, now: Place) -> PlaceChanged:
        if found.leads_to == now.leads_to:
            what, changed = "makes its keys with other settings", _difference(found.key_settings, now.key_settings)
            do = f'{{"redeliver": true}}, or: {self._command("rekey")}'
        else:
            what, changed = "leads elsewhere", _difference(found.leads_to, now.leads_to)
            moved = _only_moved(found.leads_to, now.leads_to)
            do = f"Undo the change, or: {self._command('adopt')}" if moved else _NEW
        return PlaceChanged(f"{self._name} {what}; nothing was sent", why=changed, do=do)

    def _command(self, name: str) -> str:
        destination = self._destination.name
        return f"balance-bridge receipts {name} {self._account} --destination {destination} --by YOU --reason WHY"


_NEW = "Correct the accounts file, or give the destination a new name: one name, one place"


def _shared_folder(kind: str, url: str) -> str:
    return f"receipts/places/{hashlib.sha256(f'{kind} {url}'.encode()).hexdigest()}"


def _was_used(store: Store, account: str, destination: str) -> bool:
    """Whether anything may have arrived under this name."""
    return any(
        _delivered(DayLog(store, account, day, destination)) for day in days_with_logs(store, account, destination)
    )


def _delivered(log: DayLog) -> bool:
    try:
        return bool(fold(log.read()).held)
    except StoreDamaged:
        # What cannot be read may have been delivered.
        return True


def _only_moved(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether nothing but the address has changed."""
    return {**before, "url": ""} == {**now, "url": ""}


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names)
