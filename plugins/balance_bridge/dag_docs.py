"""What each DAG says about itself in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balance_bridge.points import known_so_far

if TYPE_CHECKING:
    from collections.abc import Iterable

    from balance_bridge.accounts import Account, BrokenAccount, Destination
    from balance_bridge.errors import AccountsFileError


def account_doc(account: Account) -> str:
    """The documentation of an account's DAG, in Markdown."""
    on_break = {
        "hold": "nothing of the day is delivered and the run is red",
        "load": "the day is delivered anyway, and marked as broken",
        "ask": f"nothing of the day is delivered, the run is red, and `balances_{account.name}_approval` asks somebody",
    }[account.on_break]
    followed = ""
    if account.intraday is not None:
        followed = (
            f"\n`balances_{account.name}_intraday` follows the day every {account.intraday} while it goes on. "
            "This DAG uses its pages, and\ndelivers only what is new or has changed.\n"
        )
    if account.source.type == "files":
        fetched, extracted = "the files are read", "from the files"
        waited = "They wait for a file that has not arrived yet."
    else:
        fetched, extracted = "the day is fetched", "from the exchange, within\n   its key's request budget"
        waited = "They wait for the closing snapshot of a day that has just ended."
    return f"""\
### {account.name}: the balances of each UTC day, proven and delivered

From {_origin(account)} since {account.start_date}.

{_table((destination, destination.points) for destination in account.destinations.values())}

1. `day` decides which UTC day D the run is for: the parameter `date`, else the logical date, else the last whole day.
2. `opening_snapshot`, `closing_snapshot` and `history` fetch what the store does not have yet {extracted}.
   {waited}
3. `reconcile` proves that opening + every change = closing. If not, {fetched} once more; if it still
   does not add up, {on_break}.
4. `load_...` delivers. What its log shows as accepted is not sent again.
{followed}
**To run a day again**: clear its run, or trigger with `{{"date": "YYYY-MM-DD"}}`
(for many days create a backfill, without `date`). With `"refetch": true` {fetched} again, with
`"destinations": [...]` only those get balances, with
`"dry_run": true` nothing is sent. `"redeliver": true` sends again, under new numbers, what was delivered under other
keys or settings. Any other parameter is refused.

**When a task is red**: the last error entry in its log says what happened, why, and what to do. The page
"Balances" shows the day.
"""


def approval_doc(account: Account) -> str:
    """The documentation of the DAG that asks a person about an account's days, in Markdown."""
    return f"""\
### {account.name}: may a day be delivered although it does not add up?

Started by `balances_{account.name}` when a day does not add up, because the account has `on_break: ask`.

1. `approve` shows where the day does not add up, and waits for an answer. Who answers, when and why is recorded.
   The answer is about this very proof: if the day's proof changes, somebody is asked again.
2. `deliver` runs the day again after an approval: it is delivered, and marked. After a refusal it stays held.

The days after it are not held up. You can also answer on the page "Balances", or on the command line:
`balance-bridge approve {account.name} YYYY-MM-DD --by WHO --reason TEXT`
"""


def intraday_doc(account: Account) -> str:
    """The documentation of the DAG that follows an account's day while it goes on, in Markdown."""
    known = [(target, known_so_far(target.points)) for target in account.destinations.values()]
    return f"""\
### {account.name}: the current UTC day, every {account.intraday}

From {_origin(account)}. Off by default; this DAG exists because the account has `intraday: {account.intraday}`.

{_table((destination, points) for destination, points in known if points)}

1. `follow` continues after the last sequence number that the store has, checks the chain of balances from the opening
   snapshot to the last change, and works out the balances so far, after `changes` and at whole steps. A balance is
   delivered only once the second of its time has been over for more than 60 s.
2. `load_...` delivers, with the receipts of the day: what they show as accepted is never sent again.

**If the chain does not hold**, the changes are fetched once more; if it still does not, nothing more is delivered
before the daily run of that day, and this run is red. A change that is booked late is sent as a correction.

**The daily run** (`balances_{account.name}`) proves the whole day. It uses the pages that are in the store by then, and
delivers only what is new or has changed. You need not repeat a run that was missed: the next one delivers what it would
have delivered. With `"dry_run": true` nothing is sent; any other parameter is refused.
"""


def broken_doc(account: BrokenAccount) -> str:
    """The documentation of the DAG of an account that the accounts file gets wrong, in Markdown."""
    return f"""\
### {account.name}: this account is wrong in the accounts file

```
{account.message}
```

Nothing of this account is delivered until the file is corrected. Then run `balance-bridge check --fix`, and clear the
red runs, so that their days run again.
"""


def file_doc(error: AccountsFileError) -> str:
    """The documentation of the DAG that is there while the accounts file cannot be read, in Markdown."""
    return f"""\
### The accounts file cannot be read

```
{error}
```

All accounts run as in the last good version of the file, if this machine has one. Until the file is corrected, changes
to it have no effect. This DAG disappears once the file can be read again.
"""


def _origin(account: Account) -> str:
    source = account.source
    if source.type == "files":
        return f"**{source.type}** in `{source.path}`"
    return f"**{source.type}** ({source.category}, connection `{source.conn_id}`)"


def _table(rows: Iterable[tuple[Destination, Iterable[str]]]) -> str:
    lines = ["| destination | type | connection | points | zone |", "|---|---|---|---|---|"]
    lines += [
        f"| {target.name} | {target.type} | `{target.conn_id}` | {', '.join(points)} | {target.timezone} |"
        for target, points in rows
    ]
    return "\n".join(lines)


PREFLIGHT_DOC = """\
### Preflight check

Checks, on a worker, everything that a run needs: the accounts file, options, connections and their permissions, the
accounts and sources at the destinations, the store, the request budget, and the clocks. Delivers nothing. Trigger it
after each change; `balance-bridge check --deep` does the same on the command line.
"""
