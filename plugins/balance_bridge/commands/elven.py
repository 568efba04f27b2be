"""``balance-bridge elven``: what Elven has, and the source that balances go into."""

from __future__ import annotations

from balance_bridge.commands.output import Listing, Output
from balance_bridge.hooks.elven import ElvenHook
from balance_bridge.load.elven_setup import BALANCE_SOURCE, BalanceSource, create_source, entity_accounts, sources

_KEYS = ("entity_account_id", "account", "source_id", "source", "type")


def accounts(conn_id: str, output: Output) -> int:
    """List the entity accounts that a connection's key can see, and their sources.

    Raises:
        BalanceBridgeError: As the requests end.
    """
    elven = ElvenHook(conn_id).get_conn()
    names, found = entity_accounts(elven), sources(elven)
    rows = [(each.entity_account_id, names.get(each.entity_account_id, ""), *_source(each)) for each in found]
    bare = names.keys() - {each.entity_account_id for each in found}
    rows += [(account, names[account], "", "", "") for account in bare]
    records = [dict(zip(_KEYS, row, strict=True)) for row in sorted(rows)]
    ready = sum(record["type"] == BALANCE_SOURCE for record in records)
    make = "To make one: balance-bridge elven create-source --account ID --name NAME"
    remarks = [f"{len(names)} entity accounts; {ready} sources take balances (type {BALANCE_SOURCE}).", make]
    output.show(Listing(records, {key: key for key in _KEYS}, remarks=remarks))
    return 0


def create(conn_id: str, account: str, name: str, output: Output) -> int:
    """Make a source for balances and show its id.

    Raises:
        BalanceBridgeError: As the request ends.
    """
    made = create_source(ElvenHook(conn_id).get_conn(), entity_account_id=account, name=name)
    if output.form == "table":
        print(f"source_id: {made.source_id}")
    else:
        output.show(Listing([dict(zip(_KEYS, (account, "", *_source(made)), strict=True))], {}, _KEYS))
    return 0


def _source(source: BalanceSource) -> tuple[str, str, str]:
    return source.source_id, source.name, source.kind
