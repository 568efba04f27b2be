"""``balance-bridge check``: whether everything that a run needs is there and right, and what to do if it is not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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
)
from balance_bridge.accounts.sharing import find_clashes
from balance_bridge.commands.output import Finding, Output, right
from balance_bridge.commands.pools import pool_findings
from balance_bridge.errors import BalanceBridgeError, ConfigurationError
from balance_bridge.extract.budget import Budget
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.load.destination import normalised
from balance_bridge.transport import Transport

if TYPE_CHECKING:
    from balance_bridge.hooks.ascendex import AscendexHook

Look = tuple[str, Callable[[], str]]
"""What is looked at, and how: it returns what it sees, and raises what is wrong."""

# One page of Elven's says that a signature is good for 5 s.
MOST_SKEW_S = 5


def findings(*, deep: bool = False, database: bool = True, fix: bool = False) -> Iterator[Finding]:
    """Look at everything, one finding after another. Nothing is delivered, and nothing changed unless that is wanted.

    Args:
        deep: Look at the destinations as well: whether what the accounts file names is there and fits.
        database: Look at what Airflow's database knows: pools and the triggerer. Tasks cannot read it.
        fix: Create the pools that are missing.
    """
    file = settings.read_accounts()
    if file.error is None:
        yield right("accounts file", f"{settings.accounts_file()}: valid accounts: {len(file.accounts)}")
    else:
        yield Finding("accounts file", str(file.error))
        if not file.accounts:
            return
    for broken in file.broken.values():
        for problem in broken.message.splitlines():
            yield Finding(f"account {broken.name}", problem)
    hooks = _hooks(file)
    yield from _looked(_options())
    yield from _connections(hooks)
    yield from _places(file, hooks)
    accounts = file.accounts.values()
    yield from _looked((f"files of {each.name}", partial(_files, each)) for each in accounts)
    if deep:
        yield from _looked(look for account in accounts for look in _destinations(account))
    if database:
        yield from pool_findings(file, fix=fix)
        yield from _triggerer()


def run(*, deep: bool, fix: bool, output: Output) -> int:
    """Show the findings.

    Returns:
        The exit code: 1 if anything is wrong.
    """
    found = list(findings(deep=deep, fix=fix))
    wrong = sum(not each.right for each in found)
    return output.show_findings(found, f"{wrong} problem{'s' * (wrong > 1)} found." if wrong else "All checks passed.")


def _looked(looks: Iterable[Look]) -> Iterator[Finding]:
    """What was found by looking; nothing where there is nothing to look at."""
    for what, look in looks:
        try:
            if message := look():
                yield right(what, message)
        except (BalanceBridgeError, OSError) as error:
            yield Finding(what, str(error))


def _options() -> Iterator[Look]:
    yield "option namespace", settings.namespace
    yield "option retry_delay", lambda: f"{settings.retry_delay().total_seconds():.0f} s"
    yield "option budget", _budget
    yield "option store", _store


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
    """Whether each connection works and, where it does, what is left of its budget and how its server's clock goes."""
    from balance_bridge.hooks.ascendex import AscendexHook

    servers = dict[str, None]()
    for hook in hooks:
        works, message = hook.test_connection()
        yield (right if works else Finding)(f"connection {hook.conn_id}", message)
        if works:
            servers[urljoin(hook.base_url, "/").rstrip("/")] = None
            if isinstance(hook, AscendexHook):
                yield from _looked([(f"request budget of {hook.conn_id}", partial(_usage, hook))])
    yield from _looked((f"clock of {server}", partial(_clock, server)) for server in servers)


def _places(file: AccountsFile, hooks: list[ApiHook]) -> Iterator[Finding]:
    """Destinations that deliver to one account, whether through one connection or through several."""
    urls: dict[str, str] = {}
    for hook in hooks:
        with suppress(BalanceBridgeError):
            urls[hook.conn_id] = normalised(hook.base_url)
    for name, clash in find_clashes(file.accounts.values(), lambda each: urls.get(each.conn_id, each.conn_id)):
        message = f"{clash}: only the one that delivers first goes on. Give the other one its own account there"
        yield Finding(f"account {name}", message)


def _usage(hook: AscendexHook) -> str:
    """What is left of an exchange key's request budget. One that cannot be read shows as an option."""
    with suppress(BalanceBridgeError):
        usage = hook.budget().usage()
        refused = f", {usage.refusals} of them refused by the exchange" if usage.refusals else ""
        return f"{usage.taken} of {usage.limit} slots taken; {usage.requests} requests so far{refused}"
    return ""


def _files(account: Account) -> str:
    """The files that a folder has, if the account's source is one."""
    from balance_bridge.extract.files import FilesAccount
    from balance_bridge.hooks.sources import open_source

    source = open_source(account, log=lambda _: None) if account.source.type == "files" else None
    return source.check() if isinstance(source, FilesAccount) else ""


def _destinations(account: Account) -> Iterator[Look]:
    """Whether what the accounts file names is there, and fits the balances that the store has."""
    for name, config in account.destinations.items():
        if isinstance(config, ElvenDestination):
            yield f"{account.name} to {name}: account and source", partial(_elven, config)
        yield f"{account.name} to {name}", partial(_newest_balances, account.name, config)


def _elven(config: ElvenDestination) -> str:
    from balance_bridge.hooks.elven import ElvenHook
    from balance_bridge.load.elven_setup import problems

    found = problems(ElvenHook(config.conn_id).get_conn(config))
    if found:
        raise ConfigurationError("; ".join(found))
    return f"source {config.source_id} belongs to the account and takes balances; asset symbols cannot be checked"


def _newest_balances(account: str, config: Destination) -> str:
    from balance_bridge.hooks.destinations import open_destination
    from balance_bridge.hooks.prices import due_balances

    store = settings.open_store()
    keys = [key for key in store.list(f"balances/{account}") if key.split("/")[3] == config.name]
    if not keys:
        return ""
    due, _ = due_balances(store, max(keys), config, lambda _: None)
    rejected = [row for row in open_destination(config, account).prepare(due) if row.action == "reject"]
    day = max(keys).split("/")[2]
    if rejected:
        named = "; ".join(f"{row.asset}: {row.text}" for row in rejected[:5])
        raise ConfigurationError(f"balances of {day}: {len(rejected)} could not be sent: {named}")
    return f"balances of {day}: {len(due)} fit the API's limits"


def _clock(server: str) -> str:
    """How far this machine's clock is from a server's."""
    # Whatever the response: what counts is the Date in its header.
    skew_s = Transport().send("GET", f"{server}/", headers={"accept": "*/*"}, timeout_s=10).clock_skew_s()
    if skew_s is None:
        return "its response has no date: not compared"
    if abs(skew_s) <= MOST_SKEW_S:
        return f"within {MOST_SKEW_S} s of this machine's"
    side = "behind" if skew_s > 0 else "ahead of"
    raise ConfigurationError(
        f"this machine's is {abs(skew_s):.0f} s {side} it, and signatures expire within seconds",
        do="Synchronise it by NTP",
    )


def _triggerer() -> Iterator[Finding]:
    """Whether a triggerer is at work: a task that waits for data is deferred to it, and without one never goes on."""
    try:
        from airflow.jobs.job import most_recent_job

        job = most_recent_job("TriggererJob")
        is_alive = job is not None and job.is_alive()
    except Exception:  # whatever a database may raise; the pools say so already
        return
    if is_alive:
        yield right("triggerer", "has a recent heartbeat")
    else:
        yield Finding("triggerer", "none has a recent heartbeat, so tasks that wait never go on: run airflow triggerer")
