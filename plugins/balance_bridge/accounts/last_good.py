"""Which accounts are in force: those of the accounts file or, where that cannot be read, of its last good version.

Each machine keeps a copy of the last version that could be read. Every process that reads the file renews it when it
has changed: the DAG processor within its parsing interval, and every task. A copy that cannot be written is left out.
Its last line says which destinations were refused because another account had their place already, so that the account
that delivered first keeps its place, whatever the order in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath

from balance_bridge import private
from balance_bridge.accounts.document import read_text
from balance_bridge.accounts.loading import AccountsFile, claims_of, parse_accounts
from balance_bridge.accounts.sharing import Claim
from balance_bridge.errors import AccountsFileError

_LAST_LINE = "# Kept by balance-bridge; refused because another account came first: "


def accounts_in_force(path: FilePath, folder: FilePath) -> AccountsFile:
    """Read the accounts file, or the last good version of it.

    Args:
        path: The accounts file.
        folder: Where this machine keeps copies of last good versions; made if it is missing.

    Returns:
        The accounts. If the file cannot be read, its ``error`` is set and they are those of the last good version,
        or none if this machine knows no good version.
    """
    copy = folder / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}.yaml"
    last = _read(copy)
    try:
        text = read_text(path)
        found = parse_accounts(text, str(path), lambda: _claims(last, copy))
    except AccountsFileError as error:
        return _last_good(copy, last, error)
    refused = sorted(f"{name}.{each}" for name, broken in found.broken.items() for each in broken.refused)
    _keep(copy, last, f"{text}\n{_LAST_LINE}{json.dumps(refused)}\n")
    return found


def _last_good(copy: FilePath, last: str, error: AccountsFileError) -> AccountsFile:
    do = error.do
    found = AccountsFile({}, {})
    try:
        found = parse_accounts(last, str(copy), lambda: _claims(last, copy))
        since = datetime.fromtimestamp(copy.stat().st_mtime, UTC)
    except (AccountsFileError, OSError):
        meanwhile = "no account runs: this machine never had a readable version of the file"
    else:
        meanwhile = f"its version of {since:%Y-%m-%d %H:%M} UTC runs meanwhile"
        do += f" (the version that runs: {copy})"
    return replace(found, error=AccountsFileError(f"{error.args[0]}; {meanwhile}", why=error.why, do=do))


def _read(copy: FilePath) -> str:
    try:
        return read_text(copy)
    except AccountsFileError:
        return ""


def _claims(last: str, copy: FilePath) -> set[Claim]:
    _, _, refused = last.rpartition(_LAST_LINE)
    try:
        return claims_of(last, str(copy), json.loads(refused))
    except (AccountsFileError, ValueError):
        return set()


def _keep(copy: FilePath, last: str, text: str) -> None:
    if text == last:
        return
    draft = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        try:
            private.make_file(draft, text.encode())
            os.replace(draft, copy)
        finally:
            draft.unlink(missing_ok=True)
