"""Which two destinations can deliver to one account; who of them may is decided in ``load.place``."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.accounts import AmlyzeDestination, ElvenDestination, WebhookDestination
from balance_bridge.accounts.sharing import accounts_at, find_shared


def _amlyze(ids: object) -> AmlyzeDestination:
    return AmlyzeDestination.model_validate({"name": "a", "conn_id": "a", "requester": "r", "account_ext_id": ids})


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ("A-{asset}", "A-{asset}", "A-BTC"),
        ("{asset}", "X-{asset}", "X-BTC"),
        ("{asset}-X", "{asset}", "BTC-X"),
        ("A-{asset}", "{asset}-B", "A-BTC-B"),
        ("A-{asset}", "A-B-{asset}", "A-B-BTC"),
        ({"BTC": "A", "ETH": "B"}, {"USDT": "B"}, "B"),
        ({"BTC": "A-1", "ETH": "B"}, "A-{asset}", "A-1"),
        ("{asset}", {"BTC": "A"}, "A"),
        ("A-{asset}", "B-{asset}", None),
        ("{asset}-A", "{asset}-B", None),
        ("A-{asset}-A", "A-{asset}-B", None),
        ({"BTC": "A"}, {"BTC": "B"}, None),
        ({"BTC": "A-"}, "A-{asset}", None),
        ({"BTC": "ABA"}, "AB{asset}BA", None),
        ({"BTC": "a-1"}, "A-{asset}", None),
        ("A.{asset}", {"BTC": "AxB"}, None),
    ],
)
def test_two_that_can_produce_one_amlyze_id_are_found_with_it(one: object, two: object, shared: str | None) -> None:
    held = [(account, index) for index, ids in enumerate((one, two)) for account in accounts_at(_amlyze(ids))]

    assert list(find_shared(held).values()) == ([] if shared is None else [shared])


def test_an_account_at_elven_is_an_entity_account_and_a_source() -> None:
    def elven(entity: str, source: str) -> list[str]:
        return accounts_at(
            ElvenDestination(name="e", conn_id="e", entity_account_id=entity, source_id=source, timezone="UTC")
        )

    assert elven("E", "S") == elven("E", "S")
    assert len({*elven("E", "S"), *elven("X", "S"), *elven("E", "X")}) == 3


def test_any_number_of_webhooks_may_share_a_url() -> None:
    assert accounts_at(WebhookDestination(name="w", conn_id="w")) == []


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
    held = []
    for number, rule in enumerate(rules):
        ids = f"{rule[0]}{{asset}}{rule[1]}" if isinstance(rule, tuple) else dict(enumerate(sorted(rule)))
        held += [(account, number) for account in ([ids] if isinstance(ids, str) else ids.values())]

    found = {frozenset(pair) for pair in find_shared(held)}
    # Seven letters are enough for any two of these rules to meet, if they can.
    names = ["".join(letters) for size in range(1, 8) for letters in product("AB", repeat=size)]
    expected = {
        frozenset((one, other))
        for one, other in combinations(range(len(rules)), 2)
        if any(_produces(rules[one], name) and _produces(rules[other], name) for name in names)
    }
    assert found == expected
