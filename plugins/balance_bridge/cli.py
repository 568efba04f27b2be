"""The command ``balance-bridge``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import balance_bridge
from balance_bridge.errors import BalanceBridgeError

# "receipts resolve" is "receipts-resolve" inside: where an account's name may stand, argparse knows no subcommands.
_DECISIONS = ("resolve", "adopt", "rekey")

_INTRODUCTION = """\
Daily exchange balances, proven and delivered: AscendEX to Elven and Amlyze, run by Apache Airflow.

  see it work             balance-bridge demo
  click around in it      balance-bridge up
  before the first run    balance-bridge pools
                          balance-bridge check
  afterwards              balance-bridge status
                          balance-bridge receipts ACCOUNT DATE

Options and connections come from Airflow's configuration (AIRFLOW_HOME, airflow.cfg, AIRFLOW__BALANCE_BRIDGE__...,
AIRFLOW_CONN_...). A day is done again by clearing its run in Airflow, or by
  airflow dags trigger balances_ACCOUNT --conf '{"date": "2026-11-20"}'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code: 0 if all is well, 1 if something is wrong, 2 if the arguments are.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["receipts"] and given[1:2] and given[1] in _DECISIONS:
        given[:2] = [f"receipts-{given[1]}"]
    chosen = _parser().parse_args(given)
    # Outside a task, Airflow only looks for connections in its own database if it takes the process for one of its own.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        return int(chosen.run(chosen))
    except BalanceBridgeError as error:
        from balance_bridge.commands.terminal import printable

        print("balance-bridge:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="balance-bridge", description=_INTRODUCTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"balance-bridge {balance_bridge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="three days of two accounts through a real Airflow, against a sandbox; exit 0 if every balance arrived",
        description="Starts a sandbox of the APIs and a real Airflow, lets it catch up three days of two "
        "accounts, and holds what arrived against the sandbox's own books. Everything is stopped at the end.",
    )
    _add_home(demo)
    demo.set_defaults(run=_demo)

    up = commands.add_parser(
        "up",
        help="the same with Airflow's UI, until Ctrl-C",
        description="Starts the sandbox and a real Airflow with its UI, and stays until Ctrl-C.",
    )
    _add_home(up)
    up.set_defaults(run=_up)

    sandbox = commands.add_parser(
        "sandbox",
        help="only the APIs, and a webhook's receiver, on this machine; as strict as the real ones",
        description="Serves AscendEX, Elven and Amlyze on 127.0.0.1 with a synthetic world around today, prints the "
        "connections that lead there, and shows what is delivered. Ctrl-C stops it.",
    )
    sandbox.add_argument("--port", type=int, default=0, help="TCP port (a free one)")
    sandbox.add_argument("--seed", type=int, default=7, help="number that determines the world (7)")
    sandbox.add_argument("--quiet", action="store_true", help="do not show what is delivered")
    sandbox.set_defaults(run=_sandbox)

    pools = commands.add_parser(
        "pools",
        help="make the Airflow pools that the accounts file needs",
        description="Makes a pool of one slot for each exchange connection of the accounts file. Without it Airflow "
        "never starts the extraction tasks. A pool that exists is left as it is.",
    )
    pools.set_defaults(run=_pools)

    status = commands.add_parser(
        "status",
        help="what was delivered, per account and day",
        description="Reads the store and shows per account and day whether the day was proven, and what became of "
        "its balances at each destination.",
    )
    status.add_argument("account", nargs="*", help="only these accounts")
    status.add_argument("--days", type=_positive, default=10, help="how many days back from yesterday (10)")
    status.add_argument("--json", action="store_true", help="as JSON, for other programs")
    status.set_defaults(run=_status)

    preview = commands.add_parser(
        "preview",
        help="what would be sent of a day now, without sending anything",
        description="Works out what a delivery of the day would send now, from the balances that the store has, and "
        "shows every record with its number. Sends nothing.",
    )
    _add_day(preview)
    preview.add_argument("--destination", help="only this one")
    preview.add_argument("--json", action="store_true", help="as JSON, for other programs")
    preview.set_defaults(run=_preview)

    receipts = commands.add_parser(
        "receipts",
        help="every attempt to deliver the balances of a day, with its evidence",
        description="Shows what was sent, when, under which number, by which run, and how it ended. "
        "What people decide is written down with `balance-bridge receipts resolve` (outcomes that nobody confirmed), "
        "`receipts adopt` (a destination's new address) and `receipts rekey` (a destination's new key settings); each "
        "has its own --help.",
    )
    _add_day(receipts)
    receipts.add_argument("--destination", help="only this one")
    receipts.add_argument(
        "--outcome", help="only those that ended so: accepted, rejected, seen, unknown, planned, ignored, superseded"
    )
    receipts.add_argument("--csv", type=Path, metavar="FILE", help="all columns into a CSV file")
    receipts.add_argument("--json", action="store_true", help="all columns as JSON")
    receipts.set_defaults(run=_receipts)
    _add_decisions(commands)

    _add_store(commands)

    _add_elven(commands)

    check = commands.add_parser(
        "check",
        help="see whether accounts file, options, connections, pools and clocks are right",
        description="Looks at everything that a run needs, without delivering anything, and says what is wrong and "
        "how to fix it. Pools that are missing are made. Exit code 1 if anything is wrong.",
    )
    check.add_argument(
        "--deep",
        action="store_true",
        help="ask the destinations as well whether what the accounts file names is there and fits",
    )
    check.set_defaults(run=_check)
    return parser


def _add_decisions(commands: Any) -> None:
    resolve = _add_decision(
        commands,
        "resolve",
        "Writes down what a person found out, by asking the vendor, about balances whose outcome nobody has confirmed. "
        "What was accepted is not sent again; what was rejected goes out under a new number when the day is run again.",
    )
    _add_day(resolve)
    which = resolve.add_mutually_exclusive_group(required=True)
    which.add_argument("--number", action="append", help="a communication number; several times if needed")
    which.add_argument("--all", action="store_true", help="all that are not confirmed")
    how = resolve.add_mutually_exclusive_group(required=True)
    how.add_argument("--accepted", action="store_true")
    how.add_argument("--rejected", action="store_true")
    resolve.set_defaults(run=_resolve)

    adopt = _add_decision(
        commands,
        "adopt",
        "For a destination that only changed its address: the same account at the same vendor, under a new host "
        "name or behind a proxy. Runs refuse to deliver to a changed address. This writes down that what was delivered "
        "under the old address counts as delivered under the one that the connection and the accounts file have now, "
        "so that runs go on and nothing is sent twice. Do not adopt a different place: it has none of these balances. "
        "Give it a destination name of its own instead. Sends nothing.",
    )
    _add_account(adopt)
    adopt.set_defaults(run=_adopt)

    rekey = _add_decision(
        commands,
        "rekey",
        "After a change of settings that a destination's keys are made with (Elven: timezone and source_id). Runs "
        "refuse to deliver with changed ones. This writes down that what was delivered with the old settings is right "
        "as it is: past days count as delivered, later ones use the new settings. To send past days again with the new "
        'settings, trigger each with {"redeliver": true} instead. Sends nothing.',
    )
    _add_account(rekey)
    rekey.set_defaults(run=_rekey)


def _add_decision(commands: Any, name: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        f"receipts-{name}", prog=f"balance-bridge receipts {name}", description=description
    )
    parser.add_argument("--destination", required=True, help="the destination's name in the accounts file")
    parser.add_argument("--by", required=True, metavar="WHO", help="who decided; stays in the store")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, or how it was found out; likewise")
    return parser


def _add_store(commands: Any) -> None:
    store = commands.add_parser(
        "store",
        help="look after the store: check every object, remove what is old",
        description="Looks after the store, in which everything lies that a run leaves behind.",
    )
    below = store.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = below.add_parser(
        "check",
        help="read every object: checksums, versions, gaps",
        description="Reads every object of the store and says what is damaged, and what to do; days between an "
        "account's first and last that lack something are reported as gaps. Changes nothing. Exit code 1 if anything "
        "is damaged.",
    )
    check.add_argument("account", nargs="*", help="only these accounts")
    check.add_argument("--days", type=_positive, help="only the last so many days (all)")
    check.add_argument("--json", action="store_true", help="as JSON, for other programs")
    check.set_defaults(run=_store_check)
    prune = below.add_parser(
        "prune",
        help="remove raw answers, ledgers, proofs and balances of old days; never receipts",
        description="Shows, or with --yes removes, what days older than --keep can do without: raw answers, ledgers, "
        "reports and balances. Never what is undelivered, and never receipts: they are what prevents a second "
        "delivery. A day that was pruned cannot be run again once the exchange has forgotten it.",
    )
    prune.add_argument("--keep", type=_keep, required=True, metavar="400d", help="days to keep, 30d or more")
    prune.add_argument("--yes", action="store_true", help="remove it")
    prune.set_defaults(run=_store_prune)


def _add_elven(commands: Any) -> None:
    elven = commands.add_parser("elven", help="prepare Elven: make the source that balances go into")
    below = elven.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = below.add_parser(
        "create-source",
        help="make a source of type OPENAPI_BALANCE",
        description="Makes a source of type OPENAPI_BALANCE for an entity account and prints its id, which goes into "
        "the accounts file as source_id.",
    )
    create.add_argument("--conn-id", default="elven_default", help="the Airflow connection (elven_default)")
    create.add_argument("--account", required=True, metavar="ID", help="entity_account_id")
    create.add_argument("--name", required=True, help="the source's name, unique within the Entity")
    create.set_defaults(run=_create_source)


def _add_account(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", help="the account's name in the accounts file")


def _add_day(parser: argparse.ArgumentParser) -> None:
    _add_account(parser)
    parser.add_argument("day", type=_day, metavar="DATE", help="the UTC day, YYYY-MM-DD")


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, help="folder for all that it makes, emptied first (.demo)")


def _day(text: str) -> date:
    from balance_bridge.accounts.fields import parse_day

    try:
        return parse_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def _keep(text: str) -> int:
    from balance_bridge.commands.store_prune import LEAST_DAYS

    days = text.removesuffix("d")
    if days == text or not days.isdigit() or len(days) > 5 or int(days) < LEAST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days such as 400d, {LEAST_DAYS}d or more")
    return int(days)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


# Each command imports what it needs: Airflow alone takes a second, and --help should not.


def _demo(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import demo

    return demo.run_demo(chosen.home or demo.default_home())


def _up(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import demo

    return demo.run_up(chosen.home or demo.default_home())


def _sandbox(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import demo

    return demo.run_sandbox(chosen.port, chosen.seed, not chosen.quiet)


def _pools(_: argparse.Namespace) -> int:
    from balance_bridge.commands import pools

    return pools.run()


def _status(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import status

    return status.run(chosen.account, days=chosen.days, as_json=chosen.json)


def _preview(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import preview

    return preview.run(chosen.account, chosen.day, destination=chosen.destination, as_json=chosen.json)


def _receipts(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import receipts

    return receipts.show(
        chosen.account,
        chosen.day,
        destination=chosen.destination,
        outcome=chosen.outcome,
        csv_file=chosen.csv,
        as_json=chosen.json,
    )


def _resolve(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import receipts
    from balance_bridge.load.replies import Said

    return receipts.resolve(
        chosen.account,
        chosen.day,
        destination=chosen.destination,
        numbers=chosen.number,
        said=Said.ACCEPTED if chosen.accepted else Said.REJECTED,
        decision=receipts.Decision(chosen.by, chosen.reason),
    )


def _adopt(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import receipts

    decision = receipts.Decision(chosen.by, chosen.reason)
    return receipts.adopt(chosen.account, destination=chosen.destination, decision=decision)


def _rekey(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import receipts

    decision = receipts.Decision(chosen.by, chosen.reason)
    return receipts.rekey(chosen.account, destination=chosen.destination, decision=decision)


def _store_check(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import store_check

    return store_check.run(chosen.account, days=chosen.days, as_json=chosen.json)


def _store_prune(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import store_prune

    return store_prune.run(keep_days=chosen.keep, yes=chosen.yes)


def _create_source(chosen: argparse.Namespace) -> int:
    from balance_bridge.hooks.elven import ElvenHook
    from balance_bridge.load.elven_setup import create_source

    elven = ElvenHook(chosen.conn_id).get_conn()
    made = create_source(elven, entity_account_id=chosen.account, name=chosen.name)
    print(f"source_id: {made.source_id}")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from balance_bridge.commands import check

    return check.run(deep=chosen.deep)


if __name__ == "__main__":
    sys.exit(main())
