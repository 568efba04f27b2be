from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from balance_bridge.accounts import AccountsFile, load_accounts

# Line numbers count: the tests name them.
BASE = """\
accounts:
  main_cash:
    source:
      type: ascendex
      conn_id: ascendex_default
      category: cash
    start_date: 2026-11-01
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: entity1
        source_id: source1
        timezone: Asia/Shanghai
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "CASH-{asset}"
  other:
    source: {type: ascendex, conn_id: ascendex_other, category: margin}
    start_date: 2026-11-02
    destinations:
      amlyze: {conn_id: amlyze_default, requester: treasury, account_ext_id: "OTHER-{asset}"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "accounts.yaml"


@pytest.fixture
def load(file: Path) -> Callable[[str], AccountsFile]:
    """Loads the text as an accounts file."""

    def load_text(text: str) -> AccountsFile:
        file.write_text(text, encoding="utf-8")
        return load_accounts(file)

    return load_text


@pytest.fixture
def base() -> Callable[..., str]:
    """The base file with some of its lines (from 1) replaced; a replacement may be several lines or empty."""

    def edit(replacements: dict[int, str] | None = None) -> str:
        lines = BASE.splitlines()
        for number, text in (replacements or {}).items():
            lines[number - 1] = text
        return "\n".join(lines) + "\n"

    return edit
