"""Which accounts are in force: those of the accounts file or, where that cannot be read, of its last good version.

Each machine keeps a copy of the last version that could be read. Every process that reads the file renews it when it
has changed: the DAG processor within its parsing interval, and every task. A copy that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath

from balance_bridge import private
from balance_bridge.accounts.document import read_text
from balance_bridge.accounts.loading import AccountsFile, parse_accounts
from balance_bridge.errors import AccountsFileError


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
    try:
        text = read_text(path)
        found = parse_accounts(text, str(path))
    except AccountsFileError as error:
        return _last_good(path, copy, error)
    _keep(copy, text.encode())
    return found


def _last_good(path: FilePath, copy: FilePath, error: AccountsFileError) -> AccountsFile:
    found, do = AccountsFile({}, {}), error.do
    try:
        version = f"version of {datetime.fromtimestamp(copy.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
        # People correct the accounts file, never the copy.
        found = parse_accounts(read_text(copy), f"{path} ({version})")
    except (AccountsFileError, OSError):
        meanwhile = "no account runs: this machine never had a readable version of the file"
    else:
        meanwhile = f"its {version} runs meanwhile"
        do += f" (the version that runs: {copy})"
    return replace(found, error=AccountsFileError(f"{error.args[0]}; {meanwhile}", why=error.why, do=do))


def _keep(copy: FilePath, content: bytes) -> None:
    draft = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        if copy.exists() and copy.read_bytes() == content:
            return
        try:
            private.make_file(draft, content)
            os.replace(draft, copy)
        finally:
            draft.unlink(missing_ok=True)
