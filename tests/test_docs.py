"""What the documentation names is there."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import errors

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    } | set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in ROOT.glob("tests/*/*_conformance.py"))))
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    assert named <= there, f"{page.name} names {sorted(named - there)}"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_runbook_knows_every_error() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    strategies = {"BalanceBridgeError", "PermanentError", "TransientError"}
    assert {name for name in kinds_of_errors() - strategies if f"`{name}`" not in page} == set()


def kinds_of_errors() -> set[str]:
    """The names of what this package raises on purpose."""
    return {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def test_every_promise_names_one_test() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    heads = ("| | |", "| what goes wrong")
    promises = [(row, re.findall(r"`(test_\w+)`", row)) for row in rows if not row.startswith(heads)]
    others = [row for row, named in promises if len(named) != 1 or not row.endswith(f"`{named[0]}` |")]
    named = [name for _, names in promises for name in names]
    assert len(rows) > 80
    assert others == []
    assert len(named) == len(set(named))


NOW_MS = 1_795_219_200_000
BALANCES = b'{"account": "a", "balances": [{"number": "n-1", "asset": "BTC", "at": "x", "balance": 1.5}]}'


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example receiver of the documentation, run as it stands there."""
    page = ROOT / "docs" / "destinations.md"
    code = next(each for each in re.findall(r"```python\n(.*?)```", page.read_text(), re.S) if "def receive" in each)
    there: dict[str, Any] = {}
    monkeypatch.setenv("BALANCES_SECRET", "not-real")
    exec(compile(code, str(page), "exec"), there)
    return there


def signed(body: bytes, stamp: str = str(NOW_MS)) -> dict[str, str]:
    signature = hmac.new(b"not-real", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"x-balance-bridge-timestamp": stamp, "x-balance-bridge-signature": signature}


def test_the_example_receiver_takes_what_is_signed(receiver: dict[str, Any]) -> None:
    status, document = receiver["receive"](signed(BALANCES), BALANCES, NOW_MS)
    assert (status, document) == (200, {"results": [{"number": "n-1", "status": "accepted"}]})


@pytest.mark.parametrize("header", ["x-balance-bridge-timestamp", "x-balance-bridge-signature"])
@pytest.mark.parametrize("value", [None, "", "é" * 64, "\udce9" * 13, "٣" * 13, "1" * 5000, "-1", "0" * 64])
def test_the_example_receiver_refuses_a_missing_or_malformed_header_with_401(
    receiver: dict[str, Any], header: str, value: str | None
) -> None:
    headers = signed(BALANCES)
    headers.pop(header)
    if value is not None:
        headers[header] = value
    assert receiver["receive"](headers, BALANCES, NOW_MS)[0] == 401
    assert receiver["ledger"] == {}


@pytest.mark.parametrize("stamp", ["", "é", "soon"])
def test_the_example_receiver_refuses_a_signed_request_without_a_usable_time_with_401(
    receiver: dict[str, Any], stamp: str
) -> None:
    assert receiver["receive"](signed(BALANCES, stamp), BALANCES, NOW_MS)[0] == 401
    assert receiver["ledger"] == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"\xff\xfe\xfd", b"[]", b"null", b"{}", b'{"account": "a", "balances": [{}]}', BALANCES[:-1]],
)
def test_the_example_receiver_refuses_a_body_that_is_not_a_list_of_balances_with_400(
    receiver: dict[str, Any], body: bytes
) -> None:
    assert receiver["receive"](signed(body), body, NOW_MS)[0] == 400
    assert receiver["ledger"] == {}
