"""What the hooks make of an Airflow connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balance_bridge.errors import ConfigurationError
from balance_bridge.hooks.amlyze import AmlyzeHook
from balance_bridge.hooks.ascendex import AscendexHook
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.elven import ElvenHook
from balance_bridge.hooks.webhook import WebhookHook

HOOKS = {"ascendex": AscendexHook, "elven": ElvenHook, "amlyze": AmlyzeHook, "webhook": WebhookHook}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(kind: str, conn_type: str | None = None, **fields: Any) -> ApiHook:
        # The URI form would split the scheme off a full URL, so JSON it is.
        text = json.dumps({"conn_type": conn_type or kind, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_SOME_ID", text)
        return HOOKS[kind]("some_id")

    return make


@pytest.mark.parametrize("kind", HOOKS)
def test_a_connection_that_does_not_exist_is_named_with_both_ways_to_make_it(
    monkeypatch: pytest.MonkeyPatch, airflow_db: Any, kind: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = HOOKS[kind]("nowhere").connection
    message = str(caught.value)
    assert "connection 'nowhere' does not exist" in message
    assert f"of type {kind}" in message
    assert "AIRFLOW_CONN_NOWHERE" in message


@pytest.mark.parametrize("kind", HOOKS)
def test_a_connection_of_another_type_is_refused(hook: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is of type 'http'; '{kind}' is expected"):
        _ = hook(kind, conn_type="http", host="https://x.example").connection


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "api.example"}, "https://api.example"),
        ({"host": "https://api.example"}, "https://api.example"),
        ({"host": "https://api.example/"}, "https://api.example"),
        ({"host": " https://api.example "}, "https://api.example"),
        ({"host": "http://127.0.0.1:8123"}, "http://127.0.0.1:8123"),
        ({"host": "https://api.example:8443/"}, "https://api.example:8443"),
        ({"host": "https://api.example/tenant/"}, "https://api.example/tenant"),
        ({"host": "https://API.Example"}, "https://api.example"),
        ({"host": "http://[::1]:8123"}, "http://[::1]:8123"),
        ({"host": "api.example", "port": 8443}, "https://api.example:8443"),
        ({"host": "api.example", "schema": "http", "port": 80}, "http://api.example:80"),
        ({"host": "https://api.example:1", "port": 2}, "https://api.example:1"),
    ],
)
def test_a_host_may_be_a_name_or_a_full_url(hook: Any, fields: dict[str, Any], url: str) -> None:
    assert hook("elven", **fields).base_url == url


@pytest.mark.parametrize(
    "host",
    [
        "ftp://api.example",
        "https://",
        "https:// api.example",
        "https://api.example:port",
        "https://api.example:99999",
        "https://user@api.example",
        "https://api.example?x=1",
        "https://api.example#x",
        "api example",
        "/etc/passwd",
        "https://[::1",
    ],
)
def test_a_host_that_is_not_an_address_is_refused_with_an_example(hook: Any, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a base URL.*such as https://api\.example:8443") as caught:
        _ = hook("elven", host=host).base_url
    # What stands before an @ or behind a ? may be a credential.
    assert (repr(host) in str(caught.value)) is not bool(set("@?#") & set(host))


@pytest.mark.parametrize(
    ("kind", "url"), [("ascendex", "https://ascendex.com"), ("elven", "https://openapi.elven.com")]
)
@pytest.mark.parametrize("host", [None, "", "  "])
def test_without_a_host_the_address_is_the_api_s_own(hook: Any, kind: str, url: str, host: str | None) -> None:
    assert hook(kind, host=host).base_url == url


@pytest.mark.parametrize("kind", ["amlyze", "webhook"])
def test_where_the_api_has_no_common_address_the_host_is_required(hook: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no host. {kind} has no common address"):
        _ = hook(kind, password="token").base_url


@pytest.mark.parametrize(
    ("kind", "lacking", "name"),
    [
        ("ascendex", "login", "API key (login)"),
        ("ascendex", "password", "API secret (password)"),
        ("elven", "login", "API key (login)"),
        ("elven", "password", "API secret (password)"),
        ("amlyze", "password", "bearer token (password)"),
        ("webhook", "password", "shared secret (password)"),
    ],
)
@pytest.mark.parametrize("value", [None, "", "  ", "a b", "line\nbreak", "schlüssel"])
def test_a_credential_that_is_empty_or_cannot_be_sent_is_named_and_not_shown(
    hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, kind: str, lacking: str, name: str, value: str | None
) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__BUDGET", f"sqlite:///{tmp_path}/budget.db")
    fields = {"host": "https://api.example", "login": "some-key", "password": "some-secret", lacking: value}
    with pytest.raises(ConfigurationError) as caught:
        hook(kind, **fields).get_conn()
    message = str(caught.value)
    assert "connection 'some_id'" in message
    assert name in message
    assert "some-key" not in message
    assert "some-secret" not in message
    assert not (value or "").strip() or value not in message


def test_blanks_around_a_credential_are_no_part_of_it(hook: Any) -> None:
    assert hook("elven", login=" some-key\n").secret("login", "API key") == "some-key"


@pytest.mark.parametrize("kind", HOOKS)
def test_key_and_secret_are_masked_before_they_are_used(hook: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    masked: list[str] = []
    monkeypatch.setattr("balance_bridge.hooks.connection.mask_secret", masked.append)
    _ = hook(kind, login="some-key", password="some-secret").connection
    assert {"some-key", "some-secret"} <= set(masked)


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_without_an_id_uses_its_type_s_default_connection(kind: str) -> None:
    cls = HOOKS[kind]
    assert (cls.conn_type, cls.default_conn_name, cls.conn_name_attr) == (kind, f"{kind}_default", "conn_id")
    assert cls().conn_id == f"{kind}_default"
