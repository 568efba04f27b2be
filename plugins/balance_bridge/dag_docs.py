"""What each DAG says about itself in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balance_bridge.accounts import Account, BrokenAccount


def account_doc(account: Account) -> str:
    """The documentation of an account's DAG, in Markdown."""
    rows = "\n".join(
        f"| {name} | {destination.type} | `{destination.conn_id}` | {', '.join(destination.points)} | "
        f"{destination.timezone} |"
        for name, destination in account.destinations.items()
    )
    source = account.source
    on_break = {
        "hold": "nothing of the day is delivered and the run is red",
        "load": "the day is delivered all the same, and marked",
    }[account.on_break]
    return f"""\
### {account.name}: the balances of each UTC day, proven and delivered

From **{source.type}** ({source.category}, connection `{source.conn_id}`) since {account.start_date}.

| destination | type | connection | points | zone |
|---|---|---|---|---|
{rows}

1. `day` resolves which UTC day D the run is about: parameter `date`, else the logical date, else the last whole day.
2. `opening_snapshot`, `closing_snapshot`, `history` take what the store does not have yet from the exchange, at most
   8 requests a minute per API key. The closing snapshot of a day that has just ended is waited for.
3. `reconcile` proves that opening + every change = closing. If not, the exchange is asked once more; if it still does
   not add up, {on_break}.
4. `load_...` delivers. What a receipt shows as accepted is never sent again.

**To do a day again**: clear its run, or trigger with `{{"date": "YYYY-MM-DD"}}`. With `"refetch": true` the exchange is
asked anew, with `"destinations": [...]` only those are served, with `"dry_run": true` nothing is sent.

**When something is red**: the last lines of the red task's log say what, where and what to do.
"""


def broken_doc(account: BrokenAccount) -> str:
    """The documentation of the DAG of an account that the accounts file gets wrong, in Markdown."""
    return f"""\
### {account.name}: this account is wrong in the accounts file

```
{account.message}
```

Nothing of this account is delivered until the file is mended. Then run `balance-bridge pools`, and clear the red runs:
their days are done again.
"""
