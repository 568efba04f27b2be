"""Where a destination's name leads: a delivery's log stands for one place, and for one way to make keys.

::

    receipts/<account>/places/<destination>/0001.jsonl    the newest one counts

If the name leads elsewhere by now, the log says nothing about the new place: nothing is sent until somebody decides.
"""

from __future__ import annotations

from datetime import date

import msgspec

from balance_bridge.errors import PlaceChanged, StoreDamaged
from balance_bridge.load.destination import Destination
from balance_bridge.load.fold import fold
from balance_bridge.load.log import VERSION, DayLog, days_with_logs, decode, encode
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
    """Where one destination of an account has led so far.

    Args:
        store: The store.
        account: The account's name.
        destination: The destination as the accounts file has it now.
    """

    def __init__(self, store: Store, account: str, destination: Destination) -> None:
        self._store = store
        self._account = account
        self._destination = destination
        self._folder = f"receipts/{account}/places/{destination.name}"
        self._seen: str | None = None

    def check(self, run_id: str, *, redeliver: bool = False, dry_run: bool = False) -> None:
        """Refuse to deliver if the name leads elsewhere, or keys are made with other settings, than so far.

        Args:
            run_id: The run, which writes down where the name leads if nothing was delivered so far.
            redeliver: Whether other settings are wanted.
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
                f"{self._store.describe(self._folder)} is missing, although {self._name} has delivered before. Nothing "
                f"was sent; put it back from a backup"
            )
        if found is not None and used:
            if found.leads_to != now.leads_to or not redeliver:
                raise PlaceChanged(self._message(found, now))
            now = self._now(run_id, "redeliver")
        if dry_run:
            return
        if not self._follow(now):
            self.check(run_id, redeliver=redeliver)
            return
        # A run that had looked before this was written may have begun to send to the place of before.
        if found is not None and not used and self._was_used():
            self._put(found)
            raise PlaceChanged(self._message(found, now))

    def has_changed(self) -> bool:
        """Whether somebody has written down another place since this was asked for last."""
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
        found, now = self._known(), self._now(by, reason)
        if found.leads_to == now.leads_to:
            raise PlaceChanged(f"{self._name} leads where it led before: there is nothing to adopt")
        if not _only_moved(found.leads_to, now.leads_to):
            raise PlaceChanged(
                f"{self._name} is another account now: {_difference(found.leads_to, now.leads_to)}. {_NEW}"
            )
        return self._put(msgspec.structs.replace(now, key_settings=found.key_settings))

    def rekey(self, by: str, reason: str) -> Place:
        """Write down that what was delivered under other key settings counts as delivered, and stays as it is.

        Raises:
            PlaceChanged: If the settings are those of before.
        """
        found, now = self._known(), self._now(by, reason)
        if found.key_settings == now.key_settings:
            raise PlaceChanged(f"{self._name} makes its keys as before: there is nothing to rekey")
        return self._put(msgspec.structs.replace(now, leads_to=found.leads_to))

    @property
    def _name(self) -> str:
        return f"destination {self._destination.name} of {self._account}"

    def _now(self, by: str, reason: str) -> Place:
        return Place(VERSION, self._destination.place(), self._destination.key_settings(), by, reason)

    def _known(self) -> Place:
        found = self.newest()
        if found is None:
            raise PlaceChanged(f"{self._name} has delivered nothing so far: just run it")
        return found

    def _follow(self, place: Place) -> bool:
        """Write the place that follows the one that was read last; False if somebody else was faster."""
        number = 1 if self._seen is None else 1 + int(self._seen.rpartition("/")[2].removesuffix(_SUFFIX))
        key = f"{self._folder}/{number:04}{_SUFFIX}"
        if self._store.put(key, encode(place)):
            self._seen = key
            return True
        if self._store.newest(self._folder, _SUFFIX) == self._seen:
            raise StoreDamaged(f"{self._store.describe(key)} can neither be written nor read. Nothing was sent")
        return False

    def _put(self, place: Place) -> Place:
        self._seen = self._store.append(self._folder, _SUFFIX, encode(place))
        return place

    def _was_used(self) -> bool:
        """Whether anything may have arrived so far; only asked where something differs."""
        return any(self._delivered(day) for day in days_with_logs(self._store, self._account, self._destination.name))

    def _delivered(self, day: date) -> bool:
        try:
            return bool(fold(DayLog(self._store, self._account, day, self._destination.name).read()).held)
        except StoreDamaged:
            # What cannot be read may have been delivered.
            return True

    def _message(self, found: Place, now: Place) -> str:
        """What has changed, and what to do."""
        if found.leads_to == now.leads_to:
            changed = _difference(found.key_settings, now.key_settings)
            advice = (
                'To send past days again under the new keys, trigger each with {"redeliver": true}. If what was '
                f"delivered is right as it is: {self._command('rekey')}"
            )
        else:
            changed = _difference(found.leads_to, now.leads_to)
            moved = f"If it is the same place under a new address: {self._command('adopt')}. "
            advice = f"{moved if _only_moved(found.leads_to, now.leads_to) else ''}{_NEW}"
        head = f"{self._name} has changed: {changed}. Nothing was sent"
        return f"{head}. Correct the connection or the accounts file. {advice}"

    def _command(self, name: str) -> str:
        return f"balance-bridge receipts {name} {self._account} --destination {self._destination.name}"


_NEW = "For a new place, give the destination a new name"


def _only_moved(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether nothing but the address is another one."""
    return {**before, "url": ""} == {**now, "url": ""}


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names)
