"""Where a destination's name leads: a delivery log belongs to one place, and to one way to make keys.

::

    receipts/<account>/places/<destination>/0001.jsonl    the newest one counts

If the name leads elsewhere now, the log says nothing about the new place: nothing is sent until somebody decides.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

from balance_bridge.errors import PlaceChanged, StoreDamaged
from balance_bridge.load.destination import Destination
from balance_bridge.load.documents import VERSION, decode, encode
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog, days_with_logs
from balance_bridge.store import Store

_SUFFIX = ".jsonl"


class Place(msgspec.Struct, frozen=True):
    """Where a destination's name leads.

    Attributes:
        version: Of this format.
        leads_to: Kind, address and account at the far side.
        key_settings: What keys are made with, besides the mapping of assets.
        by: Who decided so: a run, or a person.
        reason: Why.
    """

    version: int
    leads_to: dict[str, str]
    key_settings: dict[str, str]
    by: str
    reason: str


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
        self._seen: str | None = None

    def check(self, run_id: str, *, redeliver: bool = False, dry_run: bool = False) -> None:
        """Refuse to deliver if the name leads elsewhere, or keys are made with other settings, than before.

        Args:
            run_id: The run, which writes down where the name leads if nothing was delivered before.
            redeliver: Whether to go on with other key settings.
            dry_run: Whether nothing may be written.

        Raises:
            PlaceChanged: Naming what differs and what to do. Nothing was sent.
        """
        found, now = self.newest(), self._now(run_id, "first delivery")
        if found is not None and (found.leads_to, found.key_settings) == (now.leads_to, now.key_settings):
            return
        used = self._was_used()
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
        if dry_run:
            return
        if not self._follow(now):
            self.check(run_id, redeliver=redeliver)
            return
        # A run that had looked before this was written may have begun to send to the earlier place.
        if found is not None and not used and self._was_used():
            self._put(found)
            raise self._changed(found, now)

    def has_changed(self) -> bool:
        """Whether somebody has written down another place since this was last read."""
        return self._seen is not None and self._store.has_follower(self._seen)

    def newest(self) -> Place | None:
        """Where the name led last, or None."""
        self._seen = key = self._store.newest(self._folder, _SUFFIX)
        return None if key is None else decode(self._store.read(key), Place, self._store.describe(key))

    def adopt(self, by: str, reason: str) -> Place:
        """Write down that the destination only changed its address: what was delivered there counts as delivered here.

        Raises:
            PlaceChanged: If there is nothing to adopt.
        """
        return self._carry_on(self._now(by, reason), "leads_to")

    def rekey(self, by: str, reason: str) -> Place:
        """Write down that what was delivered under other key settings counts as delivered, and stays as it is.

        Raises:
            PlaceChanged: If the settings have not changed.
        """
        return self._carry_on(self._now(by, reason), "key_settings")

    def _carry_on(self, now: Place, changed: Literal["leads_to", "key_settings"]) -> Place:
        """Go on with one part of the place as it is now, and with the other as it was."""
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
        return self._put(
            msgspec.structs.replace(found, by=now.by, reason=now.reason, **{changed: getattr(now, changed)})
        )

    @property
    def _name(self) -> str:
        return f"destination {self._destination.name} of {self._account}"

    def _now(self, by: str, reason: str) -> Place:
        return Place(VERSION, self._destination.place(), self._destination.key_settings(), by, reason)

    def _follow(self, place: Place) -> bool:
        """Write the place that follows the one that was read last; False if somebody else was faster."""
        number = 1 if self._seen is None else 1 + int(self._seen.rpartition("/")[2].removesuffix(_SUFFIX))
        key = f"{self._folder}/{number:04}{_SUFFIX}"
        if self._store.put(key, encode(place)):
            self._seen = key
            return True
        if self._store.newest(self._folder, _SUFFIX) == self._seen:
            raise StoreDamaged(f"{self._store.describe(key)} can neither be written nor read; nothing was sent")
        return False

    def _put(self, place: Place) -> Place:
        self._seen = self._store.append(self._folder, _SUFFIX, encode(place))
        return place

    def _was_used(self) -> bool:
        """Whether anything may have arrived under this name."""
        return any(self._delivered(day) for day in days_with_logs(self._store, self._account, self._destination.name))

    def _delivered(self, day: date) -> bool:
        try:
            return bool(fold(DayLog(self._store, self._account, day, self._destination.name).read()).held)
        except StoreDamaged:
            # What cannot be read may have been delivered.
            return True

    def _changed(self, found: Place, now: Place) -> PlaceChanged:
        if found.leads_to == now.leads_to:
            what, changed = "makes its keys with other settings", _difference(found.key_settings, now.key_settings)
            do = f'Redeliver past days ({{"redeliver": true}}), or: {self._command("rekey")}'
        else:
            what, changed = "leads elsewhere", _difference(found.leads_to, now.leads_to)
            moved = _only_moved(found.leads_to, now.leads_to)
            do = f"Correct the connection; for a new address: {self._command('adopt')}" if moved else _NEW
        return PlaceChanged(f"{self._name} {what}; nothing was sent", why=changed, do=do)

    def _command(self, name: str) -> str:
        return f"balance-bridge receipts {name} {self._account} --destination {self._destination.name}"


_NEW = "Correct the accounts file, or give the destination a new name: one name, one place"


def _only_moved(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether nothing but the address has changed."""
    return {**before, "url": ""} == {**now, "url": ""}


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names)
