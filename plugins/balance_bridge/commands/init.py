"""``balance-bridge init``: writes an accounts file by asking, and checks each answer as it comes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from balance_bridge import private, settings
from balance_bridge.accounts.loading import parse_accounts
from balance_bridge.accounts.sharing import find_clashes
from balance_bridge.commands.arguments import today
from balance_bridge.commands.output import printable
from balance_bridge.errors import ConfigurationError

_MAX_TRIES = 3
_UNANSWERED = "unanswered"  # passes every check of an id, so that each answer is checked by itself
_QUESTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "elven": {
        "conn_id": ("Airflow connection with the Elven key", "elven_default"),
        "entity_account_id": ("Elven entity_account_id (balance-bridge elven accounts lists them)", _UNANSWERED),
        "source_id": ("Elven source_id, of type OPENAPI_BALANCE", _UNANSWERED),
        "timezone": ("Time zone of the Entity, such as Asia/Shanghai", "UTC"),
    },
    "amlyze": {
        "conn_id": ("Airflow connection with the Amlyze token", "amlyze_default"),
        "requester": ("Name under which Amlyze records the requests", "treasury"),
        "account_ext_id": ("Amlyze account id of an asset, with {asset} in it", "{name}-{{asset}}"),
    },
    "webhook": {"conn_id": ("Airflow connection with the webhook's URL and secret", "webhook_default")},
}


def run(file: Path | None) -> int:
    """Ask for accounts and write the accounts file.

    Raises:
        ConfigurationError: If the file exists, or the answers end too early or stay wrong. Nothing is written then.
    """
    configured = settings.accounts_file()
    path = configured if file is None else file.resolve()
    if path.exists():
        raise ConfigurationError(f"{path} exists already and is left as it is", do="edit it, or choose another --file")
    _check_folder(path)
    print(f"This writes {path}. Enter takes the default in brackets.")
    accounts: dict[str, Any] = {}
    try:
        _ask_account(accounts, "main_cash", "cash")
        while _ask_yes("Another account?", default=False):
            _ask_account(accounts, "main_margin", "margin")
    except EOFError as error:
        raise ConfigurationError("the answers ended before the questions did: nothing was written") from error
    content = _yaml(accounts)
    private.make_file(path, content.encode())
    if path.read_text() != content:
        raise ConfigurationError(f"{path} was written by another process in the meantime and is left as it is")
    print(f"\nWrote {path}. Keys and secrets go into Airflow's connections (Admin, Connections). Then run:")
    option = "" if path == configured else f"AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE={shlex.quote(str(path))} "
    print(f"  {option}balance-bridge check --fix")
    return 0


def _check_folder(path: Path) -> None:
    """See, before anything is asked, that the file can be made; a folder that is missing is made with it."""
    folder = next(each for each in path.parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written to" if folder.is_dir() else "is not a folder"
        raise ConfigurationError(f"{path} cannot be made: {folder} {what}", do="Choose another file with --file")


def _ask_account(accounts: dict[str, Any], name: str, category: str) -> None:
    """Ask for one account and add it to the others."""
    source: dict[str, Any] = {"type": "ascendex", "conn_id": "ascendex_default", "category": category}
    destinations: dict[str, Any] = {"webhook": {"conn_id": "unanswered"}}
    account = {"source": source, "start_date": str(today() - timedelta(days=1)), "destinations": destinations}

    def named(text: str) -> str:
        return "there is an account of this name" if text in accounts else _problem({**accounts, text: account})

    name = _ask("Account name, such as main_cash", name, named)
    accounts[name] = account

    def fill(values: dict[str, Any], key: str, question: str) -> None:
        default = str(values[key])

        def check(text: str) -> str:
            values[key] = text
            return _problem(accounts)

        values[key] = _ask(question, "" if default == _UNANSWERED else default, check)

    fill(source, "category", "Category at AscendEX: cash or margin")
    fill(source, "conn_id", "Airflow connection with the AscendEX key")
    fill(account, "start_date", f"First day to deliver (UTC); AscendEX serves {today() - timedelta(days=7)} and later")
    kinds = [kind for kind in _QUESTIONS if _ask_yes(f"Deliver to {kind.capitalize()}?", default=kind != "webhook")]
    if not kinds:
        raise ConfigurationError(f"{name} has no destination: nothing was written", do="run balance-bridge init again")
    destinations.clear()
    for kind in kinds:
        questions = _QUESTIONS[kind]
        destinations[kind] = {key: default.format(name=name.upper()) for key, (_, default) in questions.items()}
    for kind in kinds:
        for key, (question, _) in _QUESTIONS[kind].items():
            fill(destinations[kind], key, question)


def _ask(question: str, default: str, check: Callable[[str], str]) -> str:
    """Ask until the answer is right, but not endlessly: it may come from a pipe."""
    for _ in range(_MAX_TRIES):
        answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
        if not sys.stdin.isatty():
            print(printable(answer))
        problem = check(answer) if answer else "this is required"
        if not problem:
            return answer
        print(printable(f"  {problem}"))
    raise ConfigurationError(f"{question}: no valid answer in {_MAX_TRIES} tries: nothing was written")


def _ask_yes(question: str, *, default: bool) -> bool:
    answer = _ask(question, "yes" if default else "no", lambda text: "" if text in _YES | _NO else "yes or no?")
    return answer in _YES


_YES, _NO = {"y", "yes"}, {"n", "no"}


def _problem(accounts: dict[str, Any]) -> str:
    """What the accounts file's own check says; empty if it is right."""
    file = parse_accounts(_yaml(accounts), "draft")
    messages = [broken.message for broken in file.broken.values()]
    messages += [clash for _, clash in find_clashes(file.accounts.values())]
    # The line of a draft says nothing: what is wrong is what was just typed.
    return "; ".join(message.split(": ", 1)[-1] for message in messages)


def _yaml(accounts: dict[str, Any]) -> str:
    return yaml.safe_dump({"accounts": accounts}, sort_keys=False, allow_unicode=True)
