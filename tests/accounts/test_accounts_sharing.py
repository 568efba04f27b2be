from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.accounts import AccountsFile, AmlyzeDestination
from balance_bridge.accounts.sharing import Place, find_clashes

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


def test_of_two_accounts_on_one_elven_source_only_the_later_one_is_refused(load: Load, file: Path) -> None:
    loaded = load(_file(_account("one", _elven()), _account("two", _elven()), _account("three", _elven(source="s3"))))

    assert list(loaded.accounts) == ["one", "three"]
    assert loaded.broken["two"].message == (
        f"{file}:11: accounts.two.destinations.elven.source_id: 's': delivers to the same Elven connection, "
        "entity account and source as account one (line 6, accounts.one.destinations.elven), which comes first; "
        "allowed: a place of its own for each destination with this connection"
    )


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
def test_of_two_accounts_that_can_produce_one_amlyze_id_only_the_later_one_is_refused(
    load: Load, one: str, two: str, shared: str
) -> None:
    loaded = load(_file(_account("one", _amlyze(one)), _account("two", _amlyze(two))))

    assert list(loaded.accounts) == ["one"]
    message = loaded.broken["two"].message
    assert ":11: accounts.two.destinations.amlyze.account_ext_id: " in message
    assert f"the same Amlyze account id, such as {shared}, as account one (line 6, " in message
    assert "; allowed: a place of its own for each destination" in message


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

    (line,) = loaded.broken["one"].message.splitlines()
    assert line.split(": ")[1] == f"accounts.one.destinations.y.{path}"
    assert "account one (line 6, accounts.one.destinations.x)" in line


def test_sharing_is_reported_beside_the_other_problems_of_an_account(load: Load) -> None:
    loaded = load(_file(_account("one", _elven()), _account("two", _elven(), _amlyze("CASH"))))

    assert list(loaded.accounts) == ["one"]
    assert len(loaded.broken["two"].message.splitlines()) == 2


def test_an_account_with_a_mistake_elsewhere_keeps_its_place(load: Load) -> None:
    loaded = load(_file(_account("one", _elven(), _amlyze("CASH")), _account("two", _elven())))

    assert loaded.accounts == {}
    assert "which comes first" in loaded.broken["two"].message


def test_two_definitions_of_one_account_are_not_said_to_share(load: Load) -> None:
    loaded = load(_file(_account("one", _elven()), _account("one", _elven())))

    assert len(loaded.broken["one"].message.splitlines()) == 1


@pytest.mark.parametrize("ids", ['"A-{asset}"', "{BTC: B}", None])
def test_of_many_accounts_on_one_place_one_runs(load: Load, ids: str | None) -> None:
    loaded = load(_file(*(_account(f"a{number}", _amlyze(ids) if ids else _elven()) for number in range(50))))

    assert list(loaded.accounts) == ["a0"]
    assert len(loaded.broken["a49"].message.splitlines()) == 1


_part = st.text("AB", max_size=3)
_rules = st.tuples(_part, _part) | st.sets(st.text("AB", min_size=1, max_size=5), min_size=1, max_size=3)


def _produces(rule: tuple[str, str] | set[str], name: str) -> bool:
    if isinstance(rule, set):
        return name in rule
    before, after = rule
    return len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after)


@settings(deadline=None, max_examples=60)
@given(rules=st.lists(_rules, min_size=2, max_size=4))
def test_places_clash_exactly_if_an_id_can_be_produced_twice(rules: list[tuple[str, str] | set[str]]) -> None:
    places = []
    for number, rule in enumerate(rules):
        if isinstance(rule, set):
            ids: object = {f"X{index}": name for index, name in enumerate(sorted(rule))}
        else:
            ids = f"{rule[0]}{{asset}}{rule[1]}"
        target = AmlyzeDestination.model_validate(
            {"name": "amlyze", "conn_id": "a", "requester": "r", "account_ext_id": ids}
        )
        places.append(Place(str(number), target))

    found = {frozenset((int(one.account), int(other.account))) for one, other, _ in find_clashes(places)}
    # Seven letters are enough for any two of these rules to meet, if they can.
    names = ["".join(letters) for size in range(1, 8) for letters in product("AB", repeat=size)]
    expected = {
        frozenset((one, other))
        for one, other in combinations(range(len(rules)), 2)
        if any(_produces(rules[one], name) and _produces(rules[other], name) for name in names)
    }
    assert found == expected
