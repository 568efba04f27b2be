"""The errors: what they say, and what a log shows of them."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.errors import MAX_LOG_LINE, InvalidDay, PermanentError, RateLimited


def test_an_error_s_text_holds_what_why_and_do() -> None:
    error = PermanentError("the key is refused", why="it lacks a permission.", do="grant it")
    assert str(error) == "the key is refused. it lacks a permission. grant it"
    assert error.log_entry() == "what: the key is refused\nwhy: it lacks a permission.\ndo: grant it"


def test_an_error_that_says_it_all_in_one_sentence_is_that_sentence() -> None:
    assert str(InvalidDay("2026-02-30 is no day")) == "2026-02-30 is no day"
    assert InvalidDay("2026-02-30 is no day").log_entry() == "what: 2026-02-30 is no day"


@given(what=st.text(min_size=1), why=st.text(), do=st.text())
def test_a_log_entry_is_at_most_three_lines_of_110_characters(what: str, why: str, do: str) -> None:
    lines = PermanentError(what, why=why, do=do).log_entry().split("\n")
    assert 1 <= len(lines) <= 3
    assert max(map(len, lines)) <= MAX_LOG_LINE


def test_an_error_that_crosses_to_another_process_keeps_all_that_it_says() -> None:
    error = pickle.loads(pickle.dumps(RateLimited("too many", why="their count", do="wait", retry_after_s=3.0)))
    assert str(error) == "too many. their count. wait"
    assert error.retry_after_s == 3.0
