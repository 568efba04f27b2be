"""Following the day while it goes on, and waiting without a worker: the keys of an account that are about its tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from balance_bridge.accounts import Account, AccountsFile, AmlyzeDestination, AscendexSource
from balance_bridge.points import cron_of

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
_STEPS = "a step of whole minutes from 1min to 12h that divides 24 h, such as 15min"

# One file is enough for all examples: each overwrites it whole.
_examples = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


def _lines(text: str, points: str | None = "[close, changes]") -> dict[int, str]:
    """A line 8 of the account's own, and points in line 15 (of elven)."""
    replace = {7: f"    start_date: 2026-11-01\n    {text}"}
    return replace if points is None else replace | {13: f"        timezone: UTC\n        points: {points}"}


@pytest.mark.parametrize(
    ("step", "minutes"),
    [("1min", 1), ("60s", 1), ("15min", 15), ("90min", 90), ("1h", 60), ("12h", 720), ("43200s", 720)],
)
def test_intraday_keeps_its_text_and_knows_its_milliseconds(load: Load, base: Base, step: str, minutes: int) -> None:
    account = load(base(_lines(f"intraday: {step}"))).accounts["main_cash"]

    assert account.intraday == step
    assert account.intraday_ms == minutes * _MINUTE_MS


@pytest.mark.parametrize("points", ["[changes]", "[{every: 6h}]", "[open, close, local_midnight, {every: 24h}]"])
def test_one_destination_with_something_to_tell_is_enough(load: Load, base: Base, points: str) -> None:
    assert load(base(_lines("intraday: 15min", points))).accounts["main_cash"].intraday == "15min"


def test_without_the_keys_a_day_is_not_followed_and_airflow_decides_about_waiting(load: Load, base: Base) -> None:
    account = load(base()).accounts["main_cash"]

    assert (account.intraday, account.intraday_ms, account.deferrable) == (None, None, None)


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False), ('"true"', True)])
def test_deferrable_is_true_or_false(load: Load, base: Base, text: str, expected: bool) -> None:
    assert load(base(_lines(f"deferrable: {text}"))).accounts["main_cash"].deferrable is expected


@pytest.mark.parametrize(
    ("text", "value", "fault"),
    [
        ("yes", "'yes'", "is neither true nor false"),
        ("True", "'True'", "is neither true nor false, did you mean true?"),
        ("flase", "'flase'", "did you mean false?"),
        ("1", "'1'", "is neither true nor false"),
        ("", "''", "is neither true nor false"),
        ("null", "'null'", "is neither true nor false"),
        ("[true]", "a list", "is neither true nor false"),
        ("{a: b}", "a mapping", "is neither true nor false"),
    ],
)
def test_deferrable_that_is_neither_is_told(
    load: Load, base: Base, file: Path, text: str, value: str, fault: str
) -> None:
    message = load(base(_lines(f"deferrable: {text}"))).broken["main_cash"].message

    assert message.startswith(f"{file}:8: accounts.main_cash.deferrable: {value}: ")
    assert f"{fault}; allowed: true, false; without the key" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value", "fault"),
    [
        ("7min", "'7min'", "is not a step that divides 24 h"),
        ("15", "'15'", "is not a step that divides 24 h"),
        ("15m", "'15m'", "is not a step that divides 24 h"),
        ("0min", "'0min'", "is not a step that divides 24 h"),
        ("", "''", "is not a step that divides 24 h"),
        ("false", "'false'", "is not a step that divides 24 h"),
        ("[15min]", "a list", "is not a step that divides 24 h"),
        ("{every: 15min}", "{every: '15min'}", "is not a step that divides 24 h"),
        ("every 15min", "'every 15min'", "leave out the word every in it"),
        ("30s", "'30s'", "is too short"),
        ("90s", "'90s'", "is not a whole number of minutes"),
        ("24h", "'24h'", "is too long"),
        (f"{'9' * 5000}s", f"'{'9' * 80}...'", "is not a step that divides 24 h"),
    ],
)
def test_step_that_cannot_be_followed_is_told(
    load: Load, base: Base, file: Path, text: str, value: str, fault: str
) -> None:
    loaded = load(base(_lines(f"intraday: {text}")))

    assert list(loaded.accounts) == ["other"]
    message = loaded.broken["main_cash"].message
    assert message.startswith(f"{file}:8: accounts.main_cash.intraday: {value}: ")
    assert f"{fault}; allowed: {_STEPS}" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("points", [None, "[close]", "[open, close, local_midnight]"])
def test_intraday_that_would_deliver_nothing_is_refused(load: Load, base: Base, file: Path, points: str | None) -> None:
    message = load(base(_lines("intraday: 15min", points))).broken["main_cash"].message

    assert message.startswith(f"{file}:8: accounts.main_cash.intraday: '15min': would deliver nothing: ")
    assert "only the points changes and {every: STEP} can be told" in message
    assert f"; allowed: {_STEPS}" in message


def test_intraday_of_files_is_refused(load: Load, base: Base, file: Path) -> None:
    source = {4: "      type: files", 5: "      path: p", 6: "#"}
    message = load(base(_lines("intraday: 15min") | source)).broken["main_cash"].message

    assert message.startswith(f"{file}:8: accounts.main_cash.intraday: '15min': a source of type files cannot")
    assert "for an account of an exchange" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {13: "        timezone: UTC\n        points: [chnages]"},
        {11: "        entity_account_id: ''", 13: "        timezone: UTC\n        points: [changes]"},
        {9: "      Elven:"},
        {4: "      type: file"},
    ],
)
def test_what_is_wrong_elsewhere_is_not_told_of_intraday_as_well(load: Load, base: Base, wrong: dict[int, str]) -> None:
    replace = _lines("intraday: 15min") | wrong
    message = load(base(replace)).broken["main_cash"].message

    assert ".intraday: " not in message


def test_what_is_wrong_with_intraday_is_told_beside_the_rest(load: Load, base: Base) -> None:
    message = load(base(_lines("intraday: 7min") | {12: "        source_id: ''"})).broken["main_cash"].message

    assert [line.split(": ")[1].removeprefix("accounts.main_cash.") for line in message.splitlines()] == [
        "intraday",
        "destinations.elven.source_id",
    ]


def test_keys_in_any_order_are_the_same_account(load: Load, base: Base) -> None:
    first = {3: "    intraday: 15min\n    source:", 13: "        timezone: UTC\n        points: [close, changes]"}

    assert load(base(first)).accounts == load(base(_lines("intraday: 15min") | {13: first[13]})).accounts


def test_models_refuse_what_the_file_may_not_hold() -> None:
    source = AscendexSource(conn_id="a", category="cash")
    target = AmlyzeDestination(name="amlyze", conn_id="a", requester="r", account_ext_id="{asset}", points=("changes",))
    settings_of_one = {
        "name": "a",
        "source": source,
        "start_date": date(2026, 11, 1),
        "destinations": {"amlyze": target},
    }

    assert Account.model_validate(settings_of_one | {"intraday": "1h", "deferrable": False}).intraday == "1h"
    for wrong in ({"intraday": 15}, {"deferrable": 1}, {"deferrable": "on"}):
        with pytest.raises(ValidationError):
            Account.model_validate(settings_of_one | wrong)


@_examples
@given(
    step=st.builds("{}{}".format, st.integers(0, 99_999), st.sampled_from(["s", "min", "h"]))
    | st.builds(
        "{}{}".format, st.sampled_from([1, 2, 3, 5, 6, 12, 15, 20, 30, 60, 90, 720]), st.sampled_from(["min", "h"])
    )
    | st.text(st.characters(codec="ascii"), max_size=6)
)
def test_any_step_is_one_that_cron_can_name_or_a_fault(load: Load, base: Base, step: str) -> None:
    loaded = load(base(_lines(f"intraday: {json.dumps(step)}")))

    if "main_cash" not in loaded.accounts:
        assert all(
            ": accounts.main_cash.intraday: " in line for line in loaded.broken["main_cash"].message.splitlines()
        )
        return
    step_ms = loaded.accounts["main_cash"].intraday_ms
    assert step_ms is not None
    assert _MINUTE_MS <= step_ms <= _DAY_MS // 2
    assert _DAY_MS % step_ms == 0
    assert step_ms % _MINUTE_MS == 0
    runs = 0
    for cron in cron_of(step):
        minutes, hours = cron.split()[:2]
        runs += len(minutes.split(",")) * len(hours.split(","))
    assert runs == _DAY_MS // step_ms
