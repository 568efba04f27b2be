"""The options as the package reads them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from balance_bridge import settings
from balance_bridge.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("ACCOUNTS_FILE", "STORE", "RETRY_DELAY", "BUDGET", "NAMESPACE"):
        monkeypatch.delenv(f"AIRFLOW__BALANCE_BRIDGE__{option}", raising=False)


def test_without_any_setting_everything_lies_in_airflow_home(airflow_home: Path) -> None:
    home = airflow_home.resolve()
    assert settings.airflow_home() == home
    assert settings.accounts_file() == home / "include" / "accounts.yaml"
    assert settings.store_url() == f"{home}/balances"
    assert settings.budget_url() == f"sqlite:///{home}/balance_bridge_budget.db"
    assert settings.retry_delay() == timedelta(seconds=60)
    assert settings.namespace() == "bb"


def test_airflow_home_may_hold_a_tilde_and_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "somewhere")
    monkeypatch.setenv("AIRFLOW_HOME", "~/$PLACE")
    assert settings.airflow_home() == tmp_path.resolve() / "somewhere"
    monkeypatch.delenv("AIRFLOW_HOME")
    assert settings.airflow_home() == tmp_path.resolve() / "airflow"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("include/mine.yaml", "{home}/include/mine.yaml"),
        ("/etc/mine.yaml", "/etc/mine.yaml"),
        ("~/mine.yaml", "{user}/mine.yaml"),
    ],
)
def test_the_accounts_file_is_relative_to_airflow_home(
    monkeypatch: pytest.MonkeyPatch, airflow_home: Path, tmp_path: Path, value: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE", value)
    assert str(settings.accounts_file()) == expected.format(home=airflow_home.resolve(), user=tmp_path)


@pytest.mark.parametrize("value", ["{AIRFLOW_HOME}/kept", "kept"])
def test_a_store_in_a_folder_keeps_what_is_put_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__STORE", value)
    settings.open_store().put("a/b", b"content")
    assert (tmp_path / "kept" / "a" / "b").read_bytes() == b"content"


def test_a_store_by_url_keeps_what_is_put_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__STORE", f"file://{tmp_path}/kept")
    settings.open_store().put("a/b", b"content")
    assert settings.open_store().read("a/b") == b"content"
    assert (tmp_path / "kept" / "a" / "b").read_bytes() == b"content"


def test_a_store_of_an_unknown_kind_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__STORE", "nosuch://bucket/balances")
    with pytest.raises(ConfigurationError, match="store = nosuch://bucket/balances cannot be opened") as caught:
        settings.open_store()
    assert "install the cloud's Airflow provider" in str(caught.value)


@pytest.mark.parametrize("value", ["1", " 5 ", "86400"])
def test_a_delay_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY", value)
    assert settings.retry_delay() == timedelta(seconds=int(value))


@pytest.mark.parametrize("value", ["0", "00", "-1", "1.5", "1e3", "ten", "", "²", "1234567"])
def test_a_delay_that_is_none_is_refused_with_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY", value)
    with pytest.raises(ConfigurationError, match="a whole number of seconds, 1 or more") as caught:
        settings.retry_delay()
    assert f"retry_delay = {value}".strip() in str(caught.value)


@pytest.mark.parametrize("value", ["bb", "acme.eu", "A1", "x" * 32])
def test_a_namespace_is_letters_digits_and_points(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__NAMESPACE", value)
    assert settings.namespace() == value


@pytest.mark.parametrize("value", ["", "a b", "a:b", "a/b", "a-b", "x" * 33, "ü"])
def test_a_namespace_that_would_blur_numbers_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__NAMESPACE", value)
    with pytest.raises(ConfigurationError, match="Allowed: 1 to 32 letters, digits or points"):
        settings.namespace()


def test_a_budget_that_no_process_could_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from balance_bridge.extract.budget import Budget

    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__BUDGET", "sqlite://budget.db")
    with pytest.raises(ConfigurationError, match=r"allowed: sqlite:////absolute/path/to/file\.db"):
        Budget(settings.budget_url(), "key")
