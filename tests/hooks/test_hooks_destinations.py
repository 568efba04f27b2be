"""From a destination of the accounts file to the thing that delivers there."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from balance_bridge.accounts import AmlyzeDestination, Destination, ElvenDestination, WebhookDestination
from balance_bridge.errors import ConfigurationError, ConnectionFailed
from balance_bridge.hooks.destinations import HOOKS, KEYS, open_destination

ELVEN = ElvenDestination(name="books", conn_id="x", entity_account_id="entity", source_id="source", timezone="UTC")
WEBHOOK = WebhookDestination(name="ledger", conn_id="x")
AMLYZE = AmlyzeDestination(name="watch", conn_id="x", requester="us", account_ext_id="ID-{asset}")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(kind: str, **fields: Any) -> None:
        right = {"conn_type": kind, "host": "https://api.example", "login": "some-key", "password": "some-secret"}
        monkeypatch.setenv("AIRFLOW_CONN_X", json.dumps({**right, **fields}))

    return made


def test_every_type_of_destination_has_a_hook_and_a_kind_of_key() -> None:
    kinds = {config.type for config in (ELVEN, AMLYZE, WEBHOOK)}
    # The accounts file's types of destination are an annotated union.
    assert len(get_args(get_args(Destination)[0])) == len(kinds)
    assert set(HOOKS) == set(KEYS) == kinds
    assert all(HOOKS[kind].conn_type == kind for kind in kinds)


@pytest.mark.parametrize(
    ("config", "kind"), [(ELVEN, "elven"), (AMLYZE, "amlyze"), (WEBHOOK, "webhook")], ids=["elven", "amlyze", "webhook"]
)
def test_a_destination_goes_by_its_name_in_the_file(connect: Any, config: Any, kind: str) -> None:
    connect(kind)
    assert open_destination(config, "main_cash").name == config.name


@pytest.mark.parametrize(
    ("config", "kind"), [(ELVEN, "amlyze"), (AMLYZE, "elven"), (WEBHOOK, "elven")], ids=["elven", "amlyze", "webhook"]
)
def test_a_destination_with_the_other_one_s_connection_is_refused(connect: Any, config: Any, kind: str) -> None:
    connect(kind)
    with pytest.raises(ConfigurationError, match=f"is of type '{kind}'"):
        open_destination(config, "main_cash")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://api.example/in/balances", "https://api.example/in/balances"),
        ("https://api.example/in/balances/", "https://api.example/in/balances/"),
        ("api.example", "https://api.example"),
    ],
)
def test_a_webhook_s_url_is_posted_to_as_it_was_given(connect: Any, monkeypatch: Any, host: str, url: str) -> None:
    connect("webhook", host=host)
    asked = []

    def send(_: Any, method: str, url: str, **options: Any) -> Any:
        asked.append((method, url))
        raise ConnectionFailed("no server")

    monkeypatch.setattr("balance_bridge.hooks.transport.MaskingTransport.send", send)
    assert open_destination(WEBHOOK, "main_cash").check() == (False, "no server")
    assert asked == [("POST", url)]
