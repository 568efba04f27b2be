"""The command ``balance-bridge``.

``COMMANDS`` has all commands: name, function, and the arguments with which the function is called by name. The function
is imported when it runs: Airflow alone takes a second, and ``--help`` should not.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import balance_bridge
from balance_bridge.commands.arguments import (
    Author,
    UsageError,
    parse_day,
    parse_days,
    parse_keep,
    parse_recent,
)
from balance_bridge.commands.output import FORMATS, Output, printable
from balance_bridge.errors import BalanceBridgeError

_STOPPED, _PIPE_CLOSED = 130, 141  # as a shell reports SIGINT and SIGPIPE
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_WIDTH = 79

_INTRODUCTION = """\
Daily exchange balances, proven and delivered: AscendEX to Elven and Amlyze,
run by Apache Airflow.

  see it work             balance-bridge demo
  explore it in the UI    balance-bridge up
  set it up               balance-bridge init
                          balance-bridge check --fix
  every day               balance-bridge status
                          balance-bridge receipts ACCOUNT yesterday

Options and connections come from Airflow's configuration (AIRFLOW_HOME,
airflow.cfg, AIRFLOW__BALANCE_BRIDGE__..., AIRFLOW_CONN_...). To run a day
again, clear its run in Airflow, or
  airflow dags trigger balances_ACCOUNT --conf '{"date": "2026-11-20"}'
"""
_EXIT_CODES = "Exit codes: 0 all is well, 1 something is wrong, 2 the command was mistyped."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code: 0 if all is well, 1 if something is wrong, 2 if the arguments are.
    """
    if sys.stdout is None:
        return _fail("standard output is closed", "Leave it open, or send it to /dev/null")
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BalanceBridgeError as error:
        _fail(str(error.args[0]), error.why, error.do)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return _STOPPED
    except BrokenPipeError:
        # The reader has seen enough, as `head` has.
        _discard_output()
        return _PIPE_CLOSED
    except OSError as error:
        if error.filename is None and error.errno not in _UNWRITABLE:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return _fail(f"{error.filename or 'the output'}: {error.strerror}", "Look at its permissions and its disk")
    return code


def _fail(*parts: str) -> int:
    lines = [line for part in parts for line in part.split("\n") if line]
    print("balance-bridge:", "\n  ".join(map(printable, lines)), file=sys.stderr)
    return 1


def _discard_output() -> None:
    """Let what is still buffered go nowhere: Python writes it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(given: list[str]) -> int:
    parser = _parser()
    try:
        if len(given) == 1 and (group := _group(given[0])):
            parser.error(f"a second word is required: {' or '.join(', '.join(group).rsplit(', ', 1))}")
        chosen = vars(parser.parse_args(_joined(given)))
    except SystemExit as ended:
        return int(ended.code or 0)
    # Outside a task, Airflow only looks for connections in its own database if it takes the process for one of its own.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    if "form" in chosen:
        chosen["output"] = Output(chosen.pop("form"), chosen.pop("quiet"), sys.stdout)
    if "by" in chosen:
        chosen["author"] = Author(chosen.pop("by"), chosen.pop("reason"))
    module, _, name = chosen.pop("run").partition(":")
    # Airflow logs to standard output: what is meant for another program must stand there alone.
    for_programs = "output" in chosen and chosen["output"].form != "table"
    with redirect_stdout(sys.stderr) if for_programs else nullcontext():
        command: Callable[..., int] = getattr(importlib.import_module(f"balance_bridge.{module}"), name)
        return command(**chosen)


def _group(word: str) -> list[str]:
    """The commands of two words that begin with a word which is no command by itself."""
    return [] if word in COMMANDS else [name for name in COMMANDS if name.startswith(f"{word} ")]


def _joined(given: list[str]) -> list[str]:
    """The arguments as argparse takes them: a command of two words is one. Help for a group is the help of all."""
    pair = " ".join(given[:2])
    is_group = given[:1] != [] and _group(given[0]) != []
    if is_group and given[1:2] in (["-h"], ["--help"]):
        return ["--help"]
    return [pair, *given[2:]] if is_group or pair in COMMANDS else given


class _Parser(argparse.ArgumentParser):
    """Keeps the shape of descriptions, and says what a mistyped choice may have meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """End with the usage, what is wrong, and a suggestion."""
        wrong = re.search(r"(.*invalid choice: '(.*?)').*\(choose from (.*)\)", message, re.DOTALL)
        if wrong:
            from balance_bridge.accounts.problems import did_you_mean

            known = re.split(r"[', ]{2,}", wrong[3].strip("'"))
            message = f"{wrong[1]}{did_you_mean(wrong[2], known)} (choose from {', '.join(known)})"
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="balance-bridge", description=_INTRODUCTION, epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"balance-bridge {balance_bridge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    texts = dict(block.split(": ", 1) for block in re.split(r"\n(?=\S)", HELP))
    for name, (run, *arguments) in COMMANDS.items():
        summary, _, description = texts[name].partition("\n")
        command = commands.add_parser(name, help=summary, description=_filled(inspect.cleandoc(description)))
        for one in arguments:
            is_choice = isinstance(one, list)
            to: Any = command.add_mutually_exclusive_group(required=True) if is_choice else command
            for flags, settings in one if is_choice else [one]:
                to.add_argument(*flags, **settings)
        command.set_defaults(run=run)
    return parser


def _filled(text: str) -> str:
    """Paragraphs as a terminal shows them; what is indented (examples) stays as it is."""
    return "\n\n".join(part if part[:1] == " " else textwrap.fill(part, _WIDTH) for part in text.split("\n\n"))


def _argument(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


def _flag(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, {"action": "store_true", **settings}


def _only(flag: str, what: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    text = f"only {what}; repeatable (default: all)"
    return _argument(flag, dest=f"{flag[2:]}s", action="append", default=[], metavar="NAME", help=text)


def _recent(default: str | None, shown: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    text = f"how many days back from yesterday, or {_DAYS} (default: {shown})"
    return _argument("--days", type=parse_recent, default=default, metavar="N|DATE", help=text)


_DAYS = "YYYY-MM-DD, yesterday, today, or FIRST..LAST"
_HOME = _argument(
    "--home",
    type=Path,
    default=Path(os.environ.get("BALANCE_BRIDGE_DEMO", ".demo")),
    help="folder for everything it creates; emptied first (default: %(default)s)",
)
_SANDBOX = (
    _argument("--port", type=int, default=0, help="TCP port (default: a free one)"),
    _argument("--seed", type=int, default=7, help="number that determines the world (default: 7)"),
    _flag("-q", "--quiet", dest="show", action="store_false", help="do not show what is delivered (default: show it)"),
)
_FILE = _argument("--file", type=Path, help="the file to write (default: Airflow's option accounts_file)")
_FIX = _flag("--fix", help="create the pools that are missing (default: report them)")
_DEEP = _flag("--deep", help="check the destinations too (default: connections only)")
_ACCOUNT = _argument("account", metavar="ACCOUNT", help="the account's name in the accounts file")
_ACCOUNTS = _argument("accounts", nargs="*", metavar="ACCOUNT", help="only these accounts (default: all)")
_DATE = _argument("day", type=parse_day, metavar="DATE", help="YYYY-MM-DD or yesterday (UTC)")
_DATES = _argument("days", type=parse_days, metavar="DATE", help=f"{_DAYS} (UTC)")
_ONLY = _only("--destination", "this destination"), _only("--asset", "this asset")
_TWO_DATES = (
    _argument("first", type=parse_day, metavar="DATE", help="YYYY-MM-DD or yesterday (UTC)"),
    _argument("second", type=parse_day, metavar="DATE", help="the later one"),
)
_OUTCOME = _only("--outcome", "accepted, rejected, seen, unknown, planned, ignored or superseded ones")
_OUTPUT = (
    _argument(
        *("-o", "--output"),
        dest="form",
        choices=FORMATS,
        default="table",
        metavar="|".join(FORMATS),
        help="how to show it; JSON and CSV have every column (default: table)",
    ),
    _flag("-q", "--quiet", help="only what is wrong or needs attention (default: everything)"),
)
_STAYS = "stays in the store (required)"
_AUTHOR = (
    _argument("--by", required=True, metavar="WHO", help=f"who decided; {_STAYS}"),
    _argument("--reason", required=True, metavar="TEXT", help=f"why, or how you found out; {_STAYS}"),
)
_DECISION = (
    _ACCOUNT,
    _argument("--destination", required=True, metavar="NAME", help="its name in the accounts file (required)"),
    *_AUTHOR,
)
_RECEIPTS_FILE = _argument("file", type=Path, metavar="FILE", help="the CSV of receipts, with outcomes filled in")
_REFUSE = _flag("--refuse", help="keep the day held (default: approve it, and run it)")
_WHICH = [
    _argument("--number", dest="numbers", action="append", metavar="NUMBER", help="a communication number; repeatable"),
    _argument("--all", dest="numbers", action="store_const", const=None, help="all numbers that are not confirmed"),
]
_SAID = [
    _argument("--accepted", dest="said", action="store_const", const="accepted", help="the vendor accepted them"),
    _argument("--rejected", dest="said", action="store_const", const="rejected", help="the vendor does not have them"),
]
_KEPT = "days to keep, 30d or more (required)"
_KEEP = _argument("--keep", dest="keep_days", type=parse_keep, required=True, metavar="400d", help=_KEPT)
_YES = _flag("--yes", help="remove the data (default: only show what would be removed)")
_CONN_ID = _argument("--conn-id", default="elven_default", metavar="ID", help="the connection (default: %(default)s)")
_NEW_SOURCE = (
    _argument("--account", required=True, metavar="ID", help="entity_account_id (required)"),
    _argument("--name", required=True, help="the source's name, unique within the Entity (required)"),
)

# Of each command the function that runs it, as MODULE:NAME, and its arguments; of those in a list one is required.
COMMANDS: dict[str, tuple[Any, ...]] = {
    "demo": ("commands.demo:run_demo", _HOME),
    "up": ("commands.demo:run_up", _HOME),
    "sandbox": ("commands.demo:run_sandbox", *_SANDBOX),
    "init": ("commands.init:run", _FILE),
    "check": ("commands.check:run", _FIX, _DEEP, *_OUTPUT),
    "pools": ("commands.pools:run", *_OUTPUT),
    "status": ("commands.status:run", _ACCOUNTS, _recent("10", "10"), *_OUTPUT),
    "explain": ("commands.explain:run", _ACCOUNT, _DATE),
    "diff": ("commands.explain:diff", _ACCOUNT, *_TWO_DATES, _ONLY[1], *_OUTPUT),
    "approve": ("commands.decisions:approve", _ACCOUNT, _DATE, *_AUTHOR, _REFUSE),
    "preview": ("commands.preview:run", _ACCOUNT, _DATES, *_ONLY, *_OUTPUT),
    "receipts": ("commands.receipts:show", _ACCOUNT, _DATES, *_ONLY, _OUTCOME, *_OUTPUT),
    "receipts resolve": ("commands.decisions:resolve", *_DECISION, _DATE, _WHICH, _SAID),
    "receipts resolve-file": ("commands.decisions:resolve_file", _RECEIPTS_FILE, *_AUTHOR),
    "receipts adopt": ("commands.decisions:adopt", *_DECISION),
    "receipts rekey": ("commands.decisions:rekey", *_DECISION),
    "store check": ("commands.store_check:run", _ACCOUNTS, _recent(None, "all"), *_OUTPUT),
    "store index": ("commands.store_index:run", _ACCOUNTS),
    "store prune": ("commands.store_prune:run", _KEEP, _YES, *_OUTPUT),
    "elven accounts": ("commands.elven:accounts", _CONN_ID, *_OUTPUT),
    "elven create-source": ("commands.elven:create", _CONN_ID, *_NEW_SOURCE, *_OUTPUT),
}
# NAME: what it does in a few words; below, what its own help says.
HELP = """\
demo: see it work: a real Airflow against a sandbox of the APIs

  Starts a sandbox of the APIs and a real Airflow on this machine, lets it catch up three days of two accounts,
  and compares what arrived with the sandbox's own books. Everything is stopped at the end. Exit code 0 if every
  balance arrived.

up: the same with Airflow's UI, until Ctrl-C

  Starts the sandbox and a real Airflow with its UI, and stays until Ctrl-C.

sandbox: only the sandbox of the APIs, until Ctrl-C

  Serves AscendEX, Elven, Amlyze and a webhook's receiver on 127.0.0.1, as strict as the real ones, with a
  synthetic world of the days around today. Prints the connections that lead there and shows what is delivered.

init: write an accounts file by answering questions

  Asks for one account after another, checks each answer, and writes the accounts file. Enter takes the default
  in brackets. An accounts file that exists is never overwritten.

check: is everything that a run needs in place and right?

  Looks at everything that a run needs, without delivering anything, and says what is wrong and what to do.
  Changes nothing unless --fix is given. Run it while Airflow runs: it also looks for a triggerer. Exit code 1 if
  anything is wrong.

    balance-bridge check          after each change of accounts or connections
    balance-bridge check --fix    create the Airflow pools that are missing
    balance-bridge check --deep   do Elven's account and source exist and match?

pools: create the Airflow pools that the accounts file needs

  Creates a pool of one slot for each exchange connection of the accounts file, as check --fix does. Without its
  pool Airflow never starts an extraction task. A pool that exists is left as it is.

status: is everything delivered? Per account and day

  Says in its first line whether anything is wrong, then shows for each account and day whether the day was
  proven and what became of its balances. Exit code 1 if anything is wrong or missing: a day that was not run,
  does not add up or was not delivered; balances that are rejected or unknown; a paused DAG; a start date that
  cannot be served.

    balance-bridge status --quiet       for cron: silent if all is well
    balance-bridge status main_cash --days 30
    balance-bridge status --days 2026-11-01..2026-11-07 -o csv > week.csv

explain: a day in sentences: what became of it, why, and what to do

  Says whether the day adds up and, if not, where it breaks; what became of its balances at each destination, and why;
  what people decided; and what to do. Exit code 1 if anything is wrong.

    balance-bridge explain main_cash yesterday

diff: what changed between the closing balances of two days

    balance-bridge diff main_cash 2026-11-19 2026-11-20

approve: deliver a day although it does not add up, or refuse to

  For accounts with on_break: ask. Records who decided, when and why, and runs the day again: it is delivered as
  it is in the exchange's snapshots and records, and marked. With --refuse it stays held. The decision is about
  the day's proof as it is now: if that changes, somebody is asked again. You can also decide on the page
  "Balances" in Airflow.

    balance-bridge approve main_cash 2026-11-20 \\
      --by "Ada, treasury" --reason "the exchange's ticket 4711"

preview: what would be sent now, without sending anything

  Works out what a delivery would send now, from the balances that the store has, and shows every balance with
  its number. Sends nothing. Exit code 1 if a balance cannot be sent.

    balance-bridge preview main_cash yesterday --destination elven --asset BTC

receipts: every attempt to deliver a balance, and its outcome

  Shows what was sent, when, under which number, by which run, and its outcome.

    balance-bridge receipts main_cash yesterday --asset BTC
    balance-bridge receipts main_cash 2026-11-01..2026-11-07 \\
      --outcome rejected -o csv > rejected.csv

  What people decide is recorded with four commands, each with its own --help:

    balance-bridge receipts resolve        the outcome of what nobody has confirmed
    balance-bridge receipts resolve-file   the same for many, from a CSV file
    balance-bridge receipts adopt          a destination's new address or successor
    balance-bridge receipts rekey          a destination's new key settings

receipts resolve: record the outcome of balances that nobody has confirmed

  Records what you found out by asking the vendor. What was accepted is not sent again; what was rejected
  goes out under a new number when the day is run again.

    balance-bridge receipts resolve main_cash yesterday --destination amlyze \\
      --all --accepted --by "Ada, treasury" --reason "vendor's ticket 4711"

receipts resolve-file: the same for many balances, from a CSV file

  Reads the CSV that receipts shows: of each row whose outcome you have set to accepted or rejected, that is recorded.
  Other rows are left as they are. If any row is wrong, nothing of the file is recorded.

    balance-bridge receipts main_cash 2026-11-20 --outcome unknown -o csv > unknown.csv
    balance-bridge receipts resolve-file unknown.csv --by "Ada, treasury" --reason "vendor's ticket 4711"

receipts adopt: record that a destination only changed its address, or replaces another one

  For the same account at the same vendor, under a new host name or behind a proxy. Runs refuse to deliver to a
  changed address. This records that what was delivered under the old address counts as delivered under the one
  that the connection and the accounts file have now, so that runs go on and nothing is sent twice. Sends
  nothing.

  If another account, or a destination with another name, delivered there before, this one takes over its place:
  from now on the other one is refused. Days that the other one delivered are delivered again if
  you run them.

  Do not adopt a different place: it has none of these balances. Give it a new destination name instead.

receipts rekey: record that what was delivered under other key settings counts as delivered

  For a change of the settings that a destination's keys depend on (Elven: timezone and source_id). Runs refuse
  to deliver after such a change. This records that what was delivered with the old settings is right as it
  is: past days count as delivered, later ones use the new settings. Sends nothing.

  To send past days again with the new settings, trigger each with {"redeliver": true} instead.

store check: read every object: checksums, versions, gaps

  Says what is damaged, and what to do. Between an account's first and last day, a day that lacks something is a
  gap. Changes nothing. Exit code 1 if anything is damaged.

    balance-bridge store check main_cash --days 7

store index: rebuild the index of the page "Balances"

  The page reads an index, one object per account and month, instead of the whole store. Runs keep it up to date.
  Rebuild it after an upgrade from a release without the page, after you have restored a backup, or if the page
  says that it cannot be read. Changes nothing else.

store prune: remove the data of old days; never receipts

  Shows, or with --yes removes, raw responses, ledgers, reports and balances of days older than --keep. Never
  removes what is undelivered, nor receipts: they prevent a second delivery. A day that was pruned cannot be run
  again once the exchange no longer serves it.

    balance-bridge store prune --keep 400d
    balance-bridge store prune --keep 400d --yes

elven accounts: list the entity accounts and their sources

  Lists what the connection's key can see. The two ids go into the accounts file as entity_account_id and
  source_id. Only a source of type OPENAPI_BALANCE takes balances.

elven create-source: create a source of type OPENAPI_BALANCE

  Creates it for an entity account and prints its id, which goes into the accounts file as source_id.

    balance-bridge elven create-source --account w597WQZ5 --name "AscendEX balances"
"""

if __name__ == "__main__":
    sys.exit(main())
