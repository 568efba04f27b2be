"""What the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path

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
    strategies = {"BalanceBridgeError", "FinalError", "PassingError"}
    assert {name for name in kinds_of_errors() - strategies if f"`{name}`" not in page} == set()


def kinds_of_errors() -> set[str]:
    """The names of what this package raises on purpose."""
    return {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def test_every_promise_names_a_test() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    heads = ("| | |", "| what goes wrong")
    without = [row for row in rows if not row.startswith(heads) and not re.search(r"`test_\w+` \|$", row)]
    assert len(rows) > 40
    assert without == []
