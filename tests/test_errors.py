"""The errors: what they say, and what a log shows of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balance_bridge import errors
from balance_bridge.errors import MAX_LOG_LINE, BalanceBridgeError, InvalidDay, PermanentError, RateLimited

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BalanceBridgeError)]


def test_an_error_s_text_holds_what_why_and_do() -> None:
    error = PermanentError("the key is refused", why="it lacks a permission.", do="grant it")
    assert str(error) == "the key is refused. it lacks a permission. grant it"
    assert error.log_entry() == "what: the key is refused\nwhy: it lacks a permission.\ndo: grant it"


def test_an_error_without_an_instruction_of_its_own_is_logged_with_its_class_s_remedy() -> None:
    assert str(InvalidDay("2026-02-30 is no day")) == "2026-02-30 is no day"
    assert InvalidDay("2026-02-30 is no day").log_entry() == f"what: 2026-02-30 is no day\ndo: {InvalidDay.remedy}"
    assert InvalidDay("2026-02-30 is no day", do="retype it").log_entry().endswith("\ndo: retype it")


@pytest.mark.parametrize("kind", KINDS)
def test_every_remedy_fits_its_line(kind: type[BalanceBridgeError]) -> None:
    assert len(f"do: {kind.remedy}") <= MAX_LOG_LINE


def test_a_line_that_is_too_long_keeps_its_beginning_and_its_end() -> None:
    line = PermanentError("GET https://a.test/" + "x" * 200 + " answered 401").log_entry()
    assert MAX_LOG_LINE - 2 < len(line) <= MAX_LOG_LINE
    assert line.startswith("what: GET https://a.test/xxx")
    assert line.endswith("xxx answered 401")


@example(what="\x1b[2Jall is right\x07", why="\x9b31m", do="\u202egnp.exe")
@given(what=st.text(min_size=1), why=st.text(), do=st.text())
def test_a_log_entry_is_at_most_three_lines_of_110_characters(what: str, why: str, do: str) -> None:
    lines = PermanentError(what, why=why, do=do).log_entry().split("\n")
    assert 1 <= len(lines) <= 3
    assert max(map(len, lines)) <= MAX_LOG_LINE
    assert all(map(str.isprintable, lines)), "a terminal would obey control characters"


def test_an_error_that_crosses_to_another_process_keeps_all_that_it_says() -> None:
    error = pickle.loads(pickle.dumps(RateLimited("too many", why="their count", do="wait", wait_s=3.0)))
    assert str(error) == "too many. their count. wait"
    assert error.wait_s == 3.0
