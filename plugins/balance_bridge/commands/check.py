"""``balance-bridge check``: whether everything that a run needs is there and right, and what to do if it is not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from balance_bridge import settings
from balance_bridge.accounts import (
    Account,
    AccountsFile,
    AscendexSource,
    Destination,
    ElvenDestination,
    FilesSource,
)
from balance_bridge.accounts.sharing import Place, find_clashes
from balance_bridge.commands.output import Listing, Output
from balance_bridge.commands.pools import SLOTS, make_pools, pool_slots, pool_state
from balance_bridge.errors import BalanceBridgeError, ConfigurationError
from balance_bridge.extract.budget import Budget
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.transport import Transport

if TYPE_CHECKING:
    from balance_bridge.hooks.ascendex import AscendexHook

# One page of Elven's says that a signature is good for 5 s.
MOST_SKEW_S = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: The thing.
        right: Whether it is right.
        message: What was seen and, if it is not right, what to do.
    """

    what: str
    right: bool
    message: str


def findings(*, deep: bool = False, pools: bool = True, fix: bool = False) -> Iterator[Finding]:
    """Look at everything, one finding after another. Nothing is delivered, and nothing changed unless that is wanted.

    Args:
        deep: Look at the destinations as well: whether what the accounts file names is there and fits.
        pools: Look at Airflow's pools, for which its database is needed: tasks have none.
        fix: Create the pools that are missing.
    """
    path = settings.accounts_file()
    file = settings.read_accounts()
    count = len(file.accounts)
    if file.error is not None:
        yield Finding("accounts file", False, str(file.error))
        if not file.accounts:
            return
    else:
        yield Finding("accounts file", True, f"{path}: {count} account{' is' if count == 1 else 's are'} valid")
    for broken in file.broken.values():
        for problem in broken.message.splitlines():
            yield Finding(f"account {broken.name}", False, problem)
    yield from _options()
    hooks = _hooks(file)
    yield from _connections(hooks)
    yield from _places(file, hooks)
    yield from _budgets(hooks)
    yield from _folders(file)
    yield from _clocks(hooks)
    if deep:
        for account in file.accounts.values():
            yield from _destinations(account)
    if pools:
        yield from _pools(file, fix=fix)


def run(*, deep: bool, fix: bool, output: Output) -> int:
    """Show the findings.

    Returns:
        The exit code: 1 if anything is wrong.
    """
    found = list(findings(deep=deep, fix=fix))
    wrong = sum(not each.right for each in found)
    verdict = f"{wrong} problem{'s' if wrong > 1 else ''} found." if wrong else "All checks passed."
    # The sign is for a table: colours alone do not reach everybody.
    records = [
        asdict(each) | ({"sign": "✓" if each.right else "✗"} if output.form == "table" else {}) for each in found
    ]
    columns = {"": "sign", "what": "what", "finding": "message"}
    output.show(Listing(records, columns, ["" if each.right else "red" for each in found], verdict))
    return 1 if wrong else 0


def _options() -> Iterator[Finding]:
    yield _finding("option namespace", settings.namespace)
    yield _finding("option retry_delay", lambda: f"{settings.retry_delay().total_seconds():.0f} s")
    yield _finding("option budget", _budget)
    yield _finding("option store", _store)


def _budget() -> str:
    budget = Budget(settings.budget_url(), "check")
    budget.usage()  # which writes it back as well
    return f"{budget.where} can be written"


def _store() -> str:
    store = settings.open_store()
    key = f"check/{uuid.uuid4().hex}"
    store.put(key, b"balance-bridge check\n")
    store.read(key)
    store.discard(key)
    return f"{settings.store_url()} can be written and read"


def _hooks(file: AccountsFile) -> list[ApiHook]:
    from balance_bridge.hooks.ascendex import AscendexHook
    from balance_bridge.hooks.destinations import HOOKS

    kinds: dict[tuple[str, str], type[ApiHook]] = {}
    for account in file.accounts.values():
        if isinstance(account.source, AscendexSource):
            kinds[account.source.type, account.source.conn_id] = AscendexHook
        for destination in account.destinations.values():
            kinds[destination.type, destination.conn_id] = HOOKS[destination.type]
    return [kinds[key](key[1]) for key in sorted(kinds)]


def _connections(hooks: list[ApiHook]) -> Iterator[Finding]:
    for hook in hooks:
        yield Finding(f"connection {hook.conn_id}", *hook.test_connection())


def _places(file: AccountsFile, hooks: list[ApiHook]) -> Iterator[Finding]:
    """Accounts that deliver to one place through different connections: the accounts file alone cannot show that."""
    urls: dict[str, str] = {}
    for hook in hooks:
        with suppress(BalanceBridgeError):
            urls[hook.conn_id] = hook.base_url
    places = [
        Place(account.name, each.model_copy(update={"conn_id": urls.get(each.conn_id, each.conn_id)}))
        for account in file.accounts.values()
        for each in account.destinations.values()
    ]
    for one, other, shared in find_clashes(places):
        yield Finding(
            f"account {other.account}",
            False,
            f"its destination {other.destination.name} delivers to where account {one.account}'s "
            f"{one.destination.name} does ({shared} by another connection): give it a place of its own",
        )


def _budgets(hooks: list[ApiHook]) -> Iterator[Finding]:
    """What is left of each exchange key's request budget. One that cannot be read shows as an option or connection."""
    from balance_bridge.hooks.ascendex import AscendexHook

    for hook in hooks:
        if isinstance(hook, AscendexHook):
            with suppress(BalanceBridgeError):
                yield Finding(f"request budget of {hook.conn_id}", True, _usage(hook))


def _usage(hook: AscendexHook) -> str:
    usage = hook.budget().usage()
    refused = f", {usage.refusals} of them refused by the exchange" if usage.refusals else ""
    return f"{usage.taken} of {usage.limit} slots taken; {usage.requests} requests so far{refused}"


def _folders(file: AccountsFile) -> Iterator[Finding]:
    """Whether the folders that files are read from can be listed."""
    for account in file.accounts.values():
        if isinstance(account.source, FilesSource):
            yield _finding(f"files of {account.name}", partial(_list_files, account))


def _list_files(account: Account) -> str:
    from balance_bridge.extract.files import FilesSource as Folder
    from balance_bridge.hooks.sources import open_source

    source = open_source(account, log=lambda _: None)
    return source.check() if isinstance(source, Folder) else ""


def _destinations(account: Account) -> Iterator[Finding]:
    """Whether what the accounts file names is there, and fits the balances that the store has."""
    for name, config in account.destinations.items():
        what = f"{account.name} to {name}"
        if isinstance(config, ElvenDestination):
            yield _finding(f"{what}: account and source", partial(_elven, config))
        yield from _last_balances(account, name, config, what)


def _elven(config: ElvenDestination) -> str:
    from balance_bridge.hooks.elven import ElvenHook
    from balance_bridge.load.elven_setup import problems

    found = problems(ElvenHook(config.conn_id).get_conn(config))
    if found:
        raise ConfigurationError("; ".join(found))
    return f"source {config.source_id} belongs to the account and takes balances; asset symbols cannot be checked"


def _last_balances(account: Account, name: str, config: Destination, what: str) -> Iterator[Finding]:
    from balance_bridge.hooks.destinations import open_destination
    from balance_bridge.hooks.prices import due_balances

    with suppress(BalanceBridgeError):
        store = settings.open_store()
        keys = [key for key in store.list(f"balances/{account.name}") if key.split("/")[3] == name]
        if keys:
            due, _ = due_balances(store, max(keys), config, lambda _: None)
            rows = open_destination(config, account.name).prepare(due)
            rejected = [row for row in rows if row.action == "reject"]
            named = "; ".join(f"{row.asset}: {row.text}" for row in rejected[:5])
            day = max(keys).split("/")[2]
            if rejected:
                yield Finding(f"{what}: balances of {day}", False, f"{len(rejected)} could not be sent: {named}")
            else:
                yield Finding(f"{what}: balances of {day}", True, f"{len(due)} balances fit the API's limits")


def _clocks(hooks: list[ApiHook]) -> Iterator[Finding]:
    """How far this machine's clock is from each server's. A server that cannot be reached shows as a connection."""
    seen: set[str] = set()
    for hook in hooks:
        with suppress(BalanceBridgeError):
            server = urljoin(hook.base_url, "/")
            if server not in seen:
                seen.add(server)
                # Whatever the response: what counts is the Date in its header.
                skew_s = Transport().send("GET", server, headers={"accept": "*/*"}, timeout_s=10).clock_skew_s()
                yield _clock(server.rstrip("/"), skew_s)


def _clock(url: str, skew_s: float | None) -> Finding:
    what = f"clock of {url}"
    if skew_s is None:
        return Finding(what, True, "its response has no date: not compared")
    if abs(skew_s) <= MOST_SKEW_S:
        return Finding(what, True, f"within {MOST_SKEW_S} s of this machine's")
    side = "behind" if skew_s > 0 else "ahead of"
    return Finding(
        what,
        False,
        f"this machine's is {abs(skew_s):.0f} s {side} it, and signatures expire within seconds: synchronise it by NTP",
    )


def _pools(file: AccountsFile, *, fix: bool) -> Iterator[Finding]:
    try:
        created = make_pools(file) if fix else []
        slots = pool_slots(file)
    except Exception as error:
        message = f"Airflow's database cannot be read ({type(error).__name__}): run airflow db migrate first"
        yield Finding("pools", False, message)
        return
    for name, count in slots.items():
        message = "was missing, and was created" if name in created else pool_state(count) or "1 slot"
        yield Finding(f"pool {name}", count == SLOTS, message)


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except (BalanceBridgeError, OSError) as error:
        return Finding(what, False, str(error))
