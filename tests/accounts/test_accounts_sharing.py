from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from balance_bridge.accounts import AccountsFile

Load = Callable[[str], AccountsFile]


def _account(name: str, *destinations: str) -> str:
    return (
        f"  {name}:\n"
        f"    source: {{type: ascendex, conn_id: {name}, category: cash}}\n"
        "    start_date: 2026-11-01\n"
        "    destinations:\n" + "".join(f"      {destination}\n" for destination in destinations)
    )


def _file(*accounts: str) -> str:
    return "accounts:\n" + "".join(accounts)


def _elven(name: str = "elven", conn_id: str = "e", entity: str = "n", source: str = "s") -> str:
    return (
        f"{name}: {{type: elven, conn_id: {conn_id}, entity_account_id: {entity}, source_id: {source}, timezone: UTC}}"
    )


def _amlyze(ids: str, name: str = "amlyze", conn_id: str = "a") -> str:
    return f"{name}: {{type: amlyze, conn_id: {conn_id}, requester: r, account_ext_id: {ids}}}"


def test_two_accounts_on_one_elven_source_break_both_and_name_each_other(load: Load, file: Path) -> None:
    loaded = load(_file(_account("one", _elven()), _account("two", _elven()), _account("three", _elven(source="s3"))))

    assert list(loaded.accounts) == ["three"]
    assert loaded.broken["one"].message == (
        f"{file}:6: accounts.one.destinations.elven.source_id: 's': delivers to the same Elven connection, "
        "entity account and source as account two (line 11, accounts.two.destinations.elven); "
        "allowed: a source of its own for each destination"
    )
    assert loaded.broken["two"].message.startswith(f"{file}:11: accounts.two.destinations.elven.source_id: 's': ")
    assert "account one (line 6, accounts.one.destinations.elven)" in loaded.broken["two"].message


@pytest.mark.parametrize("different", [{"conn_id": "x"}, {"entity": "x"}, {"source": "x"}])
def test_one_difference_in_elven_is_enough(load: Load, different: dict[str, str]) -> None:
    assert load(_file(_account("one", _elven()), _account("two", _elven(**different)))).broken == {}


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ('"A-{asset}"', '"A-{asset}"', "'A-BTC'"),
        ('"{asset}"', '"X-{asset}"', "'X-BTC'"),
        ('"{asset}-X"', '"{asset}"', "'BTC-X'"),
        ('"A-{asset}"', '"{asset}-B"', "'A-BTC-B'"),
        ('"A-{asset}"', '"A-B-{asset}"', "'A-B-BTC'"),
        ("{BTC: A, ETH: B}", "{USDT: B}", "'B'"),
        ("{BTC: A-1, ETH: B}", '"A-{asset}"', "'A-1'"),
        ('"{asset}"', "{BTC: A}", "'A'"),
    ],
)
def test_two_accounts_that_can_produce_one_amlyze_id_break_both(load: Load, one: str, two: str, shared: str) -> None:
    loaded = load(_file(_account("one", _amlyze(one)), _account("two", _amlyze(two))))

    assert loaded.accounts == {}
    for name, line, other, other_line in [("one", 6, "two", 11), ("two", 11, "one", 6)]:
        message = loaded.broken[name].message
        assert f":{line}: accounts.{name}.destinations.amlyze.account_ext_id: " in message
        assert f"the same Amlyze account id, such as {shared}, as account {other} (line {other_line}, " in message
        assert "; allowed: account ids that no other destination" in message


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ('"A-{asset}"', '"B-{asset}"'),
        ('"{asset}-A"', '"{asset}-B"'),
        ('"A-{asset}-A"', '"A-{asset}-B"'),
        ("{BTC: A}", "{BTC: B}"),
        ("{BTC: A-}", '"A-{asset}"'),
        ("{BTC: ABA}", '"AB{asset}BA"'),
        ("{BTC: a-1}", '"A-{asset}"'),
        ('"A.{asset}"', "{BTC: AxB}"),
    ],
)
def test_ids_that_cannot_meet_are_fine(load: Load, one: str, two: str) -> None:
    assert load(_file(_account("one", _amlyze(one)), _account("two", _amlyze(two)))).broken == {}


def test_one_id_in_two_tenants_is_fine(load: Load) -> None:
    one, two = _amlyze('"{asset}"'), _amlyze('"{asset}"', conn_id="b")

    assert load(_file(_account("one", one), _account("two", two))).broken == {}


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (_elven("x"), _elven("y"), "source_id"),
        (_amlyze('"{asset}"', "x"), _amlyze("{BTC: B}", "y"), "account_ext_id"),
    ],
)
def test_two_destinations_of_one_account_may_not_share_either(load: Load, first: str, second: str, path: str) -> None:
    loaded = load(_file(_account("one", first, second)))

    lines = loaded.broken["one"].message.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        f"accounts.one.destinations.x.{path}",
        f"accounts.one.destinations.y.{path}",
    ]
    assert "account one (line 7, accounts.one.destinations.y)" in lines[0]


def test_sharing_is_told_beside_the_other_problems_of_an_account(load: Load) -> None:
    text = _file(_account("one", _elven()), _account("two", _elven(), _amlyze("CASH")))
    loaded = load(text)

    assert list(loaded.broken) == ["one", "two"]
    assert len(loaded.broken["two"].message.splitlines()) == 2


def test_two_definitions_of_one_account_are_not_told_to_share(load: Load) -> None:
    loaded = load(_file(_account("one", _elven()), _account("one", _elven())))

    assert len(loaded.broken["one"].message.splitlines()) == 1


def test_two_accounts_in_one_line_are_told_apart(load: Load) -> None:
    account = "{source: {type: ascendex, conn_id: c, category: cash}, start_date: 2026-11-01, destinations: {%s}}"
    loaded = load(f"accounts: {{one: {account % _elven()}, two: {account % _elven()}}}")

    assert "account two (line 1, accounts.two" in loaded.broken["one"].message
    assert "account one (line 1, accounts.one" in loaded.broken["two"].message


def test_message_names_a_few_of_many_others(load: Load) -> None:
    loaded = load(_file(*(_account(f"a{number}", _elven()) for number in range(50))))

    assert len(loaded.broken) == 50
    assert loaded.broken["a49"].message.count("as account") == 5
    assert " and 44 more; allowed: " in loaded.broken["a49"].message
