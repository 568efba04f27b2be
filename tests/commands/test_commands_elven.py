"""What Elven has, on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balance_bridge import cli


def test_the_entity_accounts_and_their_sources_are_listed(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["elven", "accounts", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    ids = {(row["entity_account_id"], row["source_id"]) for row in rows}
    text = place.accounts_file.read_text()
    assert any(account in text and source in text for account, source in ids if source)
    assert {row["type"] for row in rows} >= {"OPENAPI_BALANCE"}


def test_a_source_that_was_made_is_in_the_list(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["elven", "accounts", "-o", "json"])
    account = json.loads(capsys.readouterr().out)[0]["entity_account_id"]
    assert cli.main(["elven", "create-source", "--account", account, "--name", "new one"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("source_id: ")
    assert cli.main(["elven", "accounts"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "new one" in line]
    assert said.split()[1] in line
    assert account in line


def test_a_refused_key_is_said_and_nothing_else(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.connect("elven_default", password="not-the-secret")
    assert cli.main(["elven", "accounts"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "not-the-secret" not in said.err
