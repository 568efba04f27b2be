"""The preflight finds, on a worker, what would go wrong, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from balance_bridge.errors import ConfigurationError
from balance_bridge.operators.preflight import Preflight


def look(_: Any) -> dict[str, str]:
    return dict(Preflight(task_id="look").execute({}))


def test_whatever_is_right_is_listed(world: Any) -> None:
    found = look(world)
    assert "belongs to the account and takes balances" in found["main_cash to elven: account and source"]
    assert {"connection elven_default", "option store", "request budget of ascendex_cash"} <= set(found)
    assert not any("pool" in what for what in found)
    assert world.delivered() == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "source_id: ",
            "source_id: no-such-",
            r"source_id no-such-\S+ does not exist; .*create-source",
        ),
        (
            "entity_account_id: ",
            "entity_account_id: x",
            r"entity_account_id x\S+ is not among those that this key can see",
        ),
    ],
)
def test_what_elven_does_not_have_is_named_with_what_to_do(world: Any, old: str, new: str, told: str) -> None:
    world.accounts_file.write_text(world.accounts_file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=told):
        look(world)


def test_a_source_of_another_account_or_type_is_named(world: Any) -> None:
    from balance_bridge.sandbox.server import CREDENTIALS

    elven = world.sandbox.elven
    cash, margin = (CREDENTIALS.sources[f"main_{name}"] for name in ("cash", "margin"))
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(
        text.replace(cash, "T", 1).replace(margin, cash, 1).replace("source_id: T", f"source_id: {margin}")
    )
    with pytest.raises(ConfigurationError, match=rf"source_id {margin} belongs to the account"):
        look(world)
    world.accounts_file.write_text(text)
    kept = elven.sources[cash]
    elven.sources[cash] = type(kept)(kept.source_id, kept.entity_account_id, kept.name, "TRANSACTION")
    with pytest.raises(ConfigurationError, match=rf"source_id {cash} is of type TRANSACTION"):
        look(world)


def test_an_account_id_that_is_too_long_for_amlyze_is_found_before_it_is_sent(world: Any) -> None:
    world.task("reconcile")
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(text.replace('account_ext_id: "', f'account_ext_id: "{"x" * 240}', 1))
    with pytest.raises(ConfigurationError, match=r"main_cash to amlyze: balances of .* could not be sent: .*255"):
        look(world)


def test_elven_can_be_given_a_source_of_its_own(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from balance_bridge import cli
    from balance_bridge.sandbox.server import CREDENTIALS

    account = CREDENTIALS.entity_accounts["main_cash"]
    arguments = ["elven", "create-source", "--account", account, "--name", "a source of its own"]
    assert cli.main(arguments) == 0
    made = capsys.readouterr().out.strip().removeprefix("source_id: ")
    source = world.sandbox.elven.sources[made]
    assert (source.type, source.entity_account_id) == ("OPENAPI_BALANCE", account)
    assert cli.main(arguments) == 1
    assert "exists" in capsys.readouterr().err
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(text.replace(CREDENTIALS.sources["main_cash"], made, 1))
    assert "takes balances" in look(world)["main_cash to elven: account and source"]
