"""A log stands for one place and one way to make keys: what changes is refused by name, or kept and said."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from destination_conformance import held
from test_destination_conformance import AmlyzeHarness, ElvenHarness

import delivery_kit as kit
from balance_bridge.errors import (
    BalanceBridgeError,
    ConnectionFailed,
    OutcomeUnknown,
    PlaceChanged,
    RecordsRejected,
    ResponseLost,
    StoreDamaged,
)
from balance_bridge.load.destination import Balance
from balance_bridge.load.place import Places
from doubles import MemoryStore

OK = {"status": "success", "data": True}


def place(store, destination) -> Places:
    return Places(store, "main_cash", destination)


def delivered(**options: Any) -> Any:
    store = MemoryStore()
    kit.run(kit.elven(kit.FakeTransport(kit.response(OK)), **options), store, [kit.balance("A"), kit.balance("B")])
    return store


# --- another place ---


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"url": "https://other.test"}, r"url was https://elven\.test, is https://other\.test"),
        ({"url": "http://elven.test"}, r"url was https://elven\.test, is http://elven\.test"),
        ({"url": "https://elven.test:8443"}, r"url was https://elven\.test, is https://elven\.test:8443"),
        ({"entity_account_id": "SOMEBODY"}, "entity_account_id was ENTITY, is SOMEBODY"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"redeliver": True}, {"day": date(2026, 11, 25)}])
def test_a_destination_that_leads_elsewhere_is_refused_by_name_before_anything_is_sent(changed, named, options):
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    before = dict(store.objects)
    with pytest.raises(
        PlaceChanged, match=f"destination elven of main_cash leads elsewhere; nothing was sent.*{named}"
    ) as caught:
        kit.run(kit.elven(transport, **changed), store, [kit.balance("C")], **options)
    # Another account is another place; only an address can be adopted.
    adoptable = "balance-bridge receipts adopt main_cash --destination elven" in str(caught.value)
    assert adoptable == ("url" in changed)
    assert transport.requests == []
    assert store.objects == before


@pytest.mark.parametrize(
    "changed", [{"entity_account_id": "SOMEBODY"}, {"entity_account_id": "X", "url": "https://o.test"}]
)
def test_only_an_address_can_be_adopted(changed):
    store = delivered()
    with pytest.raises(PlaceChanged, match="give the destination a new name"):
        place(store, kit.elven(kit.FakeTransport(None), **changed)).adopt("Ada", "moved")


def test_a_destination_of_another_kind_under_the_same_name_is_refused_by_name():
    store, transport = delivered(name="ledger"), kit.FakeTransport(kit.FakeAmlyzeServer())
    with pytest.raises(PlaceChanged, match="kind was elven, is amlyze"):
        kit.run(kit.amlyze(transport, name="ledger"), store, [kit.balance("C")])
    assert transport.requests == []


@pytest.mark.parametrize("url", ["https://ELVEN.test", "https://elven.test:443", "https://elven.test/"])
def test_the_same_address_written_in_another_way_is_the_same_place(url):
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    summary = kit.run(kit.elven(transport, url=url), store, [kit.balance("A"), kit.balance("B")])
    assert (summary.accepted_before, summary.requests) == (2, 0)


@pytest.mark.parametrize("how", [ConnectionFailed("down"), 401, 403, 404, 400])
def test_a_first_delivery_that_never_arrived_does_not_bind_the_place(how):
    store = MemoryStore()
    reply = kit.response({"code": 1}, how) if isinstance(how, int) else how
    with pytest.raises(BalanceBridgeError):
        kit.run(kit.elven(kit.FakeTransport(reply)), store, [kit.balance()])
    there = {"url": "https://right.test", "timezone": "UTC", "entity_account_id": "RIGHT"}
    summary = kit.run(kit.elven(kit.FakeTransport(kit.response(OK)), **there), store, [kit.balance()])
    assert summary.accepted_now == 1
    with pytest.raises(PlaceChanged, match=r"url was https://right\.test"):
        kit.run(kit.elven(kit.FakeTransport(None)), store, [kit.balance()])


def test_what_may_have_arrived_binds_the_place():
    store = MemoryStore()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.elven(kit.FakeTransport(ResponseLost("gone"))), store, [kit.balance()])
    with pytest.raises(PlaceChanged):
        kit.run(kit.elven(kit.FakeTransport(None), url="https://other.test"), store, [kit.balance()])


def test_a_day_whose_log_cannot_be_read_may_have_been_delivered_and_binds_the_place():
    store = delivered()
    (key,) = [key for key in store.objects if "/plan-0001.jsonl" in key]
    store.objects[key] = store.objects[key][:20]
    other = kit.elven(kit.FakeTransport(None), url="https://other.test")
    with pytest.raises(PlaceChanged):
        kit.run(other, store, [kit.balance()], day=kit.DAY + timedelta(days=1))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:30], lambda data: data.replace(b"ENTITY", b"OTHERS"), lambda _: b""]
)
def test_a_damaged_place_stops_before_anything_is_sent(damage):
    store, transport = delivered(), kit.FakeTransport(None)
    key = "receipts/main_cash/places/elven/0001.jsonl"
    store.objects[key] = damage(store.objects[key])
    with pytest.raises(StoreDamaged, match=r"places/elven/0001\.jsonl"):
        kit.run(kit.elven(transport), store, [kit.balance("C")])
    assert transport.requests == []


def test_a_place_that_is_missing_although_a_log_was_used_stops_before_anything_is_sent():
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    del store.objects["receipts/main_cash/places/elven/0001.jsonl"]
    before = dict(store.objects)
    for options in ({}, {"dry_run": True}, {"redeliver": True}, {"day": kit.DAY + timedelta(days=1)}):
        for url in ("https://elven.test", "https://other.test"):
            with pytest.raises(StoreDamaged, match=r"places/elven is missing.*nothing was sent.*Put it back"):
                kit.run(kit.elven(transport, url=url), store, [kit.balance("A")], **options)
    assert transport.requests == []
    assert store.objects == before


@pytest.mark.parametrize("folder", ["receipts/main_cash/places/elven", "receipts/places/"])
def test_a_place_that_can_neither_be_written_nor_read_stops_before_anything_is_sent(folder):
    store, transport = MemoryStore(), kit.FakeTransport(None)
    put = store.put
    store.put = lambda key, data: not key.startswith(folder) and put(key, data)
    with pytest.raises(StoreDamaged, match=rf"{folder}.*0001\.jsonl can neither be written nor read"):
        kit.run(kit.elven(transport), store, [kit.balance("A")])
    assert transport.requests == []


# --- the place is changed while runs are under way ---


ONE, TWO = "https://one.test", "https://two.test"


def once_before(store, part: str, then) -> None:
    def before(key: str) -> None:
        if part in key:
            store.before_put = lambda _: None
            then()

    store.before_put = before


def to(server, url: str) -> Any:
    return kit.amlyze(kit.FakeTransport(server), url=url)


def test_of_two_first_runs_that_lead_to_two_places_only_one_sends():
    store, one, two = MemoryStore(), kit.FakeAmlyzeServer(), kit.FakeAmlyzeServer()
    once_before(store, "main_cash/places/", lambda: kit.run(to(two, TWO), store, [kit.balance()]))
    following = kit.DAY + timedelta(days=1)
    with pytest.raises(PlaceChanged, match=r"url was https://two\.test, is https://one\.test"):
        kit.run(to(one, ONE), store, [kit.balance()], day=following)
    assert (len(one.accepted), len(two.accepted)) == (0, 1)
    assert kit.run(to(two, TWO), store, [kit.balance()]).requests == 0


def test_two_first_runs_at_the_same_moment_to_one_place_both_send():
    store, server, following = MemoryStore(), kit.FakeAmlyzeServer(), kit.DAY + timedelta(days=1)
    once_before(store, "main_cash/places/", lambda: kit.run(to(server, ONE), store, [kit.balance()]))
    due = [kit.balance(at_ms=kit.CLOSE_MS + 1)]
    assert kit.run(to(server, ONE), store, due, day=following).accepted_now == 1
    assert [key for key in store.objects if "main_cash/places/" in key] == [
        "receipts/main_cash/places/amlyze/0001.jsonl"
    ]


def test_a_place_that_was_changed_since_a_run_looked_lets_no_request_of_it_out():
    """Nothing had been delivered, so the other day's run wrote down its own place."""
    store, one, two = MemoryStore(), kit.FakeAmlyzeServer(), kit.FakeAmlyzeServer()
    following = kit.DAY + timedelta(days=1)
    once_before(store, ".try.jsonl", lambda: kit.run(to(two, TWO), store, [kit.balance()], day=following))
    with pytest.raises(PlaceChanged, match=r"url was https://two\.test, is https://one\.test"):
        kit.run(to(one, ONE), store, [kit.balance(at_ms=kit.CLOSE_MS + 1)])
    assert (len(one.accepted), len(two.accepted)) == (0, 1)
    assert kit.statuses(store) == {"BTC": "planned"}


def test_a_new_place_is_taken_back_if_something_was_delivered_to_the_one_before_meanwhile():
    store, one, two = MemoryStore(), kit.FakeAmlyzeServer(), kit.FakeAmlyzeServer()
    with pytest.raises(ConnectionFailed):
        kit.run(to(ConnectionFailed("down"), ONE), store, [kit.balance()])
    following = kit.DAY + timedelta(days=1)
    once_before(store, "main_cash/places/", lambda: kit.run(to(one, ONE), store, [kit.balance()]))
    with pytest.raises(PlaceChanged, match=r"url was https://one\.test, is https://two\.test"):
        kit.run(to(two, TWO), store, [kit.balance()], day=following)
    assert (len(one.accepted), len(two.accepted)) == (1, 0)
    # The place is the first one's again.
    assert kit.run(to(one, ONE), store, [kit.balance()]).requests == 0


def test_a_place_that_was_written_again_as_it_is_stops_nobody_and_the_request_counts():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    folder = "receipts/main_cash/places/amlyze"
    once_before(store, ".try.jsonl", lambda: store.put(f"{folder}/0002.jsonl", store.objects[f"{folder}/0001.jsonl"]))
    assert kit.run(to(server, ONE), store, [kit.balance()]).accepted_now == 1
    assert kit.statuses(store) == {"BTC": "accepted"}
    assert [each.sent for each in kit.folded(store).events.results.values()] == [True]
    assert kit.run(to(server, ONE), store, [kit.balance()]).requests == 0


def test_a_place_holds_no_secret():
    store = MemoryStore()
    kit.run(kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, [kit.balance()])
    written = store.objects["receipts/main_cash/places/amlyze/0001.jsonl"]
    assert b"https://amlyze.test" in written
    assert kit.TOKEN.encode() not in written


def test_a_place_that_only_changed_its_address_is_adopted_and_nothing_is_sent_twice():
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    moved = kit.elven(transport, url="https://new.test")
    written, others = place(store, moved).adopt("Ada", "the vendor moved")
    assert (written.by, written.reason, written.leads_to["url"]) == ("Ada", "the vendor moved", "https://new.test")
    assert others == {}
    summary = kit.run(moved, store, [kit.balance("A"), kit.balance("B"), kit.balance("C")])
    assert (summary.accepted_before, summary.accepted_now) == (2, 1)
    assert [row["symbol"] for row in transport.rows()] == ["C"]
    # The old address is another place by now.
    with pytest.raises(PlaceChanged, match=r"url was https://new\.test, is https://elven\.test"):
        kit.run(kit.elven(kit.FakeTransport(None)), store, [kit.balance("A")])


def test_adopting_a_place_does_not_let_other_key_settings_pass():
    store = delivered()
    moved = kit.elven(kit.FakeTransport(None), url="https://new.test", timezone="UTC")
    place(store, moved).adopt("Ada", "the vendor moved")
    with pytest.raises(PlaceChanged, match="timezone was Asia/Shanghai, is UTC"):
        kit.run(moved, store, [kit.balance("A")])


@pytest.mark.parametrize("command", ["adopt", "rekey"])
def test_where_nothing_has_changed_there_is_nothing_to_decide(command):
    for store in (delivered(), MemoryStore()):
        with pytest.raises(PlaceChanged, match=r"there is nothing to|has delivered nothing so far"):
            getattr(place(store, kit.elven(None)), command)("Ada", "why")


# --- one place, one owner ---


def test_another_account_that_leads_to_the_same_place_is_refused_by_name_before_anything_is_sent():
    """However the accounts file came to that: a copy of an account, say, with the old one mistyped or gone."""
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    before = dict(store.objects)
    for options in ({}, {"dry_run": True}, {"redeliver": True}, {"day": kit.DAY + timedelta(days=1)}):
        for name in ("elven", "books"):
            with pytest.raises(PlaceChanged) as caught:
                kit.run(kit.elven(transport, name=name), store, [kit.balance("A")], account="copy", **options)
            said = (
                f"destination {name} of copy delivers to 'ENTITY SOURCE', as does elven of main_cash; nothing was sent"
            )
            assert str(caught.value.args[0]) == said
            assert f"balance-bridge receipts adopt copy --destination {name}" in caught.value.do
    # Another name in the same account has other receipts.
    with pytest.raises(PlaceChanged, match="destination books of main_cash delivers to"):
        kit.run(kit.elven(transport, name="books"), store, [kit.balance("A")])
    assert transport.requests == []
    assert store.objects == before
    # The account that was there first goes on.
    assert kit.run(kit.elven(transport), store, [kit.balance("C")]).accepted_now == 1


@pytest.mark.parametrize("changed", [{"url": "https://other.test"}, {"entity_account_id": "X"}, {"source_id": "X"}])
def test_one_difference_makes_another_place(changed):
    store = delivered()
    summary = kit.run(
        kit.elven(kit.FakeTransport(kit.response(OK)), **changed), store, [kit.balance("A")], account="other"
    )
    assert summary.accepted_now == 1


@pytest.mark.parametrize(
    ("ids", "others"),
    [("A-{asset}", "B-{asset}"), ({"BTC": "A"}, {"BTC": "B"}), ({"BTC": "A"}, "B{asset}")],
    ids=["patterns", "mappings", "both"],
)
def test_swapped_account_ids_of_two_accounts_are_refused_by_name(ids, others):
    store, server = MemoryStore(), kit.FakeAmlyzeServer()

    def run(account: str, given: Any) -> Any:
        target = kit.amlyze(kit.FakeTransport(server), account_ext_id=given)
        return kit.run(target, store, [kit.balance("BTC")], account=account, redeliver=True)

    run("one", ids)
    run("two", others)
    sent = len(server.accepted)
    with pytest.raises(PlaceChanged, match=r"destination amlyze of one delivers to 'B.*', as does amlyze of two"):
        run("one", others)
    with pytest.raises(PlaceChanged, match=r"destination amlyze of two delivers to 'A.*', as does amlyze of one"):
        run("two", ids)
    assert len(server.accepted) == sent == 2


def test_an_account_may_change_its_own_ids_and_come_back():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    for ids in ({"BTC": "A"}, {"BTC": "A", "ETH": "E"}, "A-{asset}", {"BTC": "A"}):
        target = kit.amlyze(kit.FakeTransport(server), account_ext_id=ids)
        kit.run(target, store, [kit.balance("BTC")], redeliver=True)
    target = kit.amlyze(kit.FakeTransport(server), account_ext_id={"BTC": "E"})
    with pytest.raises(PlaceChanged, match="delivers to 'E', as does amlyze of main_cash"):
        kit.run(target, store, [kit.balance("BTC")], account="other")


def test_of_two_accounts_that_first_deliver_to_one_place_at_the_same_moment_one_sends():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    once_before(store, "receipts/places/", lambda: kit.run(to(server, ONE), store, [kit.balance()], account="fast"))
    with pytest.raises(PlaceChanged, match="as does amlyze of fast"):
        kit.run(to(server, ONE), store, [kit.balance()], account="slow")
    assert len(server.accepted) == 1


def test_two_accounts_that_first_deliver_to_two_places_at_the_same_moment_both_send():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    other = kit.amlyze(kit.FakeTransport(server), url=ONE, account_ext_id="OTHER-{asset}")
    once_before(store, "receipts/places/", lambda: kit.run(other, store, [kit.balance()], account="fast"))
    for _ in range(2):
        kit.run(to(server, ONE), store, [kit.balance()], account="slow")
    assert len(server.accepted) == 2


def test_an_adopted_place_is_the_new_account_s_and_the_old_one_is_refused_even_in_the_middle_of_a_run():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(to(server, ONE), store, [kit.balance("BTC")], account="old")
    new = Places(store, "new", to(server, ONE))
    once_before(store, ".try.jsonl", lambda: new.adopt("Ada", "renamed"))
    with pytest.raises(PlaceChanged, match="as does amlyze of new") as caught:
        kit.run(to(server, ONE), store, [kit.balance("ETH")], account="old")
    assert "(renamed, by Ada)" in caught.value.why
    assert len(server.accepted) == 1
    assert kit.run(to(server, ONE), store, [kit.balance("ETH")], account="new").accepted_now == 1
    with pytest.raises(PlaceChanged, match="there is nothing to adopt"):
        new.adopt("Ada", "again")


@pytest.mark.parametrize("damage", [lambda data: data[:30], lambda data: data.replace(b"main", b"mine"), lambda _: b""])
def test_a_damaged_record_of_owners_stops_before_anything_is_sent(damage):
    store, transport = delivered(), kit.FakeTransport(None)
    (key,) = [key for key in store.objects if key.startswith("receipts/places/")]
    store.objects[key] = damage(store.objects[key])
    with pytest.raises(StoreDamaged, match=key):
        kit.run(kit.elven(transport), store, [kit.balance("C")])
    assert transport.requests == []


@pytest.mark.parametrize(
    ("changed", "command"), [({"url": "https://new.test"}, "adopt"), ({"source_id": "NEW"}, "rekey")]
)
def test_what_moves_to_another_place_claims_it_before_a_copied_account_runs_there(changed, command):
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    getattr(place(store, kit.elven(None, **changed)), command)("Ada", "moved")
    with pytest.raises(PlaceChanged, match=r"elven of copy delivers to .*, as does elven of main_cash"):
        kit.run(kit.elven(transport, **changed), store, [kit.balance("A")], account="copy")
    assert transport.requests == []
    summary = kit.run(kit.elven(transport, **changed), store, [kit.balance("A"), kit.balance("C")])
    assert (summary.accepted_before, summary.accepted_now) == (1, 1)


def test_nobody_rekeys_to_where_another_account_delivers():
    store = delivered()
    kit.run(kit.elven(kit.FakeTransport(kit.response(OK)), source_id="NEW"), store, [kit.balance()], account="other")
    before = dict(store.objects)
    with pytest.raises(PlaceChanged, match="delivers to 'ENTITY NEW', as does elven of other"):
        place(store, kit.elven(None, source_id="NEW")).rekey("Ada", "moved")
    assert store.objects == before


def test_a_rekey_claims_nothing_at_an_address_that_nobody_has_adopted():
    store = delivered()
    place(store, kit.elven(None, source_id="NEW", url="https://new.test")).rekey("Ada", "moved")
    assert len([key for key in store.objects if key.startswith("receipts/places/")]) == 1


@pytest.mark.parametrize("changed", [{}, {"url": "https://new.test", "entity_account_id": "X"}])
@pytest.mark.parametrize("command", ["adopt", "rekey"])
def test_a_decision_that_is_refused_writes_nothing(changed, command):
    store = delivered()
    before = dict(store.objects)
    with pytest.raises(PlaceChanged):
        getattr(place(store, kit.elven(None, **changed)), command)("Ada", "why")
    assert store.objects == before


def without_owners(store) -> None:
    """As after a partial restore, or as a store from before there were such records."""
    for key in [key for key in store.objects if key.startswith("receipts/places/") and key.count("/") == 3]:
        del store.objects[key]


@pytest.mark.parametrize("account", ["main_cash", "places"])
def test_where_the_record_of_owners_is_missing_whoever_has_delivered_there_is_still_the_owner(account):
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(to(server, ONE), store, [kit.balance()], account=account)
    without_owners(store)
    before = dict(store.objects)
    for options in ({}, {"dry_run": True}, {"redeliver": True}):
        for ids in ("CASH-{asset}", {"ETH": "CASH-BTC"}):
            copy = kit.amlyze(kit.FakeTransport(server), url=ONE, account_ext_id=ids)
            with pytest.raises(PlaceChanged, match=f"delivers to 'CASH-BTC', as does amlyze of {account}"):
                kit.run(copy, store, [kit.balance("ETH")], account="copy", **options)
    with pytest.raises(PlaceChanged, match=f"as does amlyze of {account}"):
        kit.run(kit.amlyze(kit.FakeTransport(server), url=ONE, name="new"), store, [kit.balance()], account=account)
    assert store.objects == before
    # Others at the same address are others, and what was found out is kept.
    other = kit.amlyze(kit.FakeTransport(server), url=ONE, account_ext_id="OTHER-{asset}")
    assert kit.run(other, store, [kit.balance()], account="other").accepted_now == 1
    with pytest.raises(PlaceChanged, match=f"as does amlyze of {account}"):
        kit.run(to(server, ONE), store, [kit.balance()], account="copy")
    assert kit.run(to(server, ONE), store, [kit.balance()], account=account).requests == 0
    assert len(server.accepted) == 2


@pytest.mark.parametrize("far", ["elven", "amlyze"])
def test_where_the_record_of_owners_is_missing_a_place_is_still_handed_over_by_a_person_only(far):
    store, transport = MemoryStore(), kit.FakeTransport(kit.response(OK))
    if far == "amlyze":
        transport = kit.FakeTransport(kit.FakeAmlyzeServer())
    target = getattr(kit, far)(transport)
    kit.run(target, store, [kit.balance()], account="old")
    without_owners(store)
    with pytest.raises(PlaceChanged, match=f"as does {far} of old"):
        kit.run(target, store, [kit.balance()], account="new")
    _, others = Places(store, "new", target).adopt("Ada", "renamed")
    assert {owner.name for owner in others.values()} == {f"{far} of old"}
    assert kit.run(target, store, [kit.balance()], account="new").accepted_now == 1
    with pytest.raises(PlaceChanged, match=f"as does {far} of new"):
        kit.run(target, store, [kit.balance()], account="old")


def test_where_the_record_of_owners_is_missing_an_unreadable_log_stops_others_before_anything_is_sent():
    store = delivered()
    without_owners(store)
    (key,) = [key for key in store.objects if "/plan-0001.jsonl" in key]
    store.objects[key] = store.objects[key][:20]
    with pytest.raises(StoreDamaged, match=key):
        kit.run(kit.elven(kit.FakeTransport(None)), store, [kit.balance()], account="copy")


@pytest.mark.parametrize("changed", [{"url": "https://other.test"}, {"source_id": "X"}, {"entity_account_id": "X"}])
def test_where_the_record_of_owners_is_missing_one_difference_still_makes_another_place(changed):
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    without_owners(store)
    assert kit.run(kit.elven(transport, **changed), store, [kit.balance()], account="other").accepted_now == 1


def aimed_at(server, there: str) -> Any:
    return kit.amlyze(kit.FakeTransport(server), account_ext_id=f"{there}-{{asset}}")


@pytest.mark.parametrize("way", ["account", "address"])
def test_two_new_accounts_that_were_swapped_and_sent_nothing_both_deliver_once_that_is_corrected(way):
    store, server = MemoryStore(), kit.FakeAmlyzeServer()

    def run(reply: Any, account: str, there: str) -> Any:
        target = aimed_at(reply, there) if way == "account" else to(reply, f"https://{there}.test")
        return kit.run(target, store, [kit.balance()], account=account)

    for account, there in (("one", "two"), ("two", "one")):
        with pytest.raises(ConnectionFailed):
            run(ConnectionFailed("down"), account, there)
    assert [run(server, account, account).accepted_now for account in ("one", "two")] == [1, 1]
    # Now each of them is an owner like any other.
    for account, there in (("one", "two"), ("two", "one"), ("three", "one"), ("three", "two")):
        with pytest.raises(PlaceChanged):
            run(server, account, there)
    assert len(server.accepted) == 2
    assert [run(server, account, account).requests for account in ("one", "two")] == [0, 0]


def test_an_owner_whose_request_may_have_arrived_refuses_others():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    with pytest.raises(OutcomeUnknown):
        kit.run(to(ResponseLost("gone"), ONE), store, [kit.balance()], account="first")
    with pytest.raises(PlaceChanged, match="as does amlyze of first"):
        kit.run(to(server, ONE), store, [kit.balance()], account="second")
    assert server.accepted == []


@pytest.mark.parametrize("when", ["receipts/places/", ".try.jsonl"])
def test_an_owner_that_begins_to_deliver_while_another_one_takes_its_place_keeps_it(when):
    """Its try is written, so it sends: or before it looks once more, and then the other one is refused."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    with pytest.raises(ConnectionFailed):
        kit.run(to(ConnectionFailed("down"), ONE), store, [kit.balance()], account="first")
    # The second one has just found that nothing was delivered, or is about to send.
    sent = []

    def first() -> None:
        try:
            sent.append(kit.run(to(server, ONE), store, [kit.balance()], account="first").accepted_now)
        except PlaceChanged:
            sent.append(0)

    once_before(store, when, first)
    try:
        sent.append(kit.run(to(server, ONE), store, [kit.balance()], account="second").accepted_now)
    except PlaceChanged:
        sent.append(0)
    assert sorted(sent) == [0, 1]
    assert len(server.accepted) == 1
    # Whoever has sent goes on, and the other one stays refused.
    names = ("first", "second") if sent[0] else ("second", "first")
    assert kit.run(to(server, ONE), store, [kit.balance()], account=names[0]).requests == 0
    with pytest.raises(PlaceChanged, match=f"as does amlyze of {names[0]}"):
        kit.run(to(server, ONE), store, [kit.balance()], account=names[1])


def test_an_owner_that_has_delivered_keeps_what_it_claims_now_and_claimed_before():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    for there in ("A", "B"):
        kit.run(aimed_at(server, there), store, [kit.balance()], redeliver=True)
    for there in ("A", "B"):
        with pytest.raises(PlaceChanged, match="as does amlyze of main_cash"):
            kit.run(aimed_at(server, there), store, [kit.balance()], account="other")


def test_a_place_that_was_handed_over_stays_the_new_account_s_whatever_that_delivers_first():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(aimed_at(server, "A"), store, [kit.balance()], account="old")
    Places(store, "new", aimed_at(None, "A")).adopt("Ada", "renamed")
    for there in ("A", "B"):
        with pytest.raises(ConnectionFailed):
            kit.run(aimed_at(ConnectionFailed("down"), there), store, [kit.balance()], account="new")
        with pytest.raises(PlaceChanged, match="as does amlyze of new"):
            kit.run(aimed_at(server, "A"), store, [kit.balance("ETH")], account="old")
    assert len(server.accepted) == 1


def test_an_account_called_places_is_like_any_other():
    store = MemoryStore()
    for _ in range(2):
        kit.run(kit.elven(kit.FakeTransport(kit.response(OK))), store, [kit.balance("A")], account="places")
    with pytest.raises(PlaceChanged, match="leads elsewhere"):
        kit.run(kit.elven(None, url="https://other.test"), store, [kit.balance("A")], account="places")


def test_webhooks_of_several_accounts_may_share_a_url():
    store = MemoryStore()
    for account in ("one", "two"):
        Places(store, account, kit.webhook(None)).check("run")
    assert len(store.objects) == 2


# --- other settings that keys are made with ---


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"timezone": "UTC"}, "timezone was Asia/Shanghai, is UTC"),
        ({"source_id": "OTHER"}, "source_id was SOURCE, is OTHER"),
    ],
)
def test_a_changed_zone_or_source_is_refused_by_name_until_somebody_decides(changed, named):
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    due = [kit.balance("A"), kit.balance("B")]
    for options in ({}, {"dry_run": True}, {"day": kit.DAY + timedelta(days=1)}):
        with pytest.raises(PlaceChanged, match=f"nothing was sent.*{named}") as caught:
            kit.run(kit.elven(transport, **changed), store, due, **options)
        assert '{"redeliver": true}' in str(caught.value)
        assert "balance-bridge receipts rekey main_cash --destination elven" in str(caught.value)
    assert transport.requests == []
    summary = kit.run(kit.elven(transport, **changed), store, due, redeliver=True)
    # The old keys are still held over there.
    assert (summary.accepted_now, summary.superseded, summary.other_keys) == (2, 2, 2)
    # From now on it is as it is; and other days may go on.
    assert kit.run(kit.elven(transport, **changed), store, due).requests == 0
    assert kit.run(kit.elven(transport, **changed), store, due, day=kit.DAY + timedelta(days=1)).accepted_now == 2


def test_rekeyed_balances_stay_as_they_are_and_are_counted_and_the_others_get_the_new_keys():
    store, transport, lines = delivered(), kit.FakeTransport(kit.response(OK)), []
    changed = kit.elven(transport, timezone="UTC")
    written = place(store, changed).rekey("Ada", "the texts were right")
    assert (written.by, written.key_settings["timezone"]) == ("Ada", "UTC")
    due = [kit.balance("A"), kit.balance("B"), kit.balance("C")]
    summary = kit.run(changed, store, due, log=lines.append)
    assert [(row["symbol"], row["datetime"]) for row in transport.rows()] == [("C", "2026-11-21 00:00:00")]
    assert (summary.accepted_before, summary.accepted_now, summary.other_keys) == (2, 1, 2)
    assert summary.example.startswith("A 2026-11-21T00:00:00.000Z as ")
    said = "elven: 2 balances are held under keys or settings that the accounts file no longer has, for example A "
    (line,) = [line for line in lines if line.startswith(said)]
    again = 'to send these again with the new ones, trigger the day with {"redeliver": true}'
    assert line.endswith(f". 2 of them are kept; {again}")


def test_what_a_redelivery_leaves_under_old_keys_is_counted_without_advice_to_redeliver():
    store, lines = delivered(), []
    changed, due = kit.elven(kit.FakeTransport(kit.response(OK)), timezone="UTC"), [kit.balance("A"), kit.balance("B")]
    kit.run(changed, store, due, redeliver=True)
    assert kit.run(changed, store, due, log=lines.append).other_keys == 2
    (line,) = [line for line in lines if "2 balances are held under keys or settings" in line]
    assert "redeliver" not in line


@pytest.mark.parametrize("days_order", [(0, 1), (1, 0)])
def test_a_corrected_zone_is_refused_by_name_and_with_redeliver_every_balance_is_right(days_order):
    """Two days, a balance every quarter of an hour: texts of one zone are texts of other instants in the other."""
    harness, store = ElvenHarness(), MemoryStore()
    first = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
    days = [
        [Balance("A0", first + index * 900_000, Decimal(index), "every 15min") for index in range(start, start + 96)]
        for start in (1, 97)
    ]

    def run(day: int, zone: str, **options: Any) -> Any:
        destination, clock = harness.destination(timezone=zone, max_rows=40), harness.clock.clock
        return kit.run(destination, store, days[day], day=kit.DAY + timedelta(days=day), clock=clock, **options)

    for day in (0, 1):
        assert run(day, "Asia/Shanghai").accepted_now == 96
    sent = len(harness.line.bodies)
    for day in (0, 1):
        with pytest.raises(PlaceChanged, match="timezone was Asia/Shanghai, is UTC"):
            run(day, "UTC")
    assert len(harness.line.bodies) == sent
    for day in days_order:
        summary = run(day, "UTC", redeliver=True)
        # Eight hours of old texts are texts of no instant of the day by now.
        assert (summary.accepted_now, summary.superseded, summary.other_keys) == (96, 96, 32)
    there = held(harness)
    right = [
        there["symbol:A0", f"{datetime.fromtimestamp(each.at_ms // 1000, ZoneInfo('UTC')):%Y-%m-%d %H:%M:%S}"]
        == each.amount
        for day in days
        for each in day
    ]
    assert right == [True] * 192
    # Done: neither with nor without it is anything sent again.
    assert [run(day, "UTC", redeliver=again).requests for day in (0, 1) for again in (True, False)] == [0] * 4


def test_a_redelivery_that_was_cut_off_is_completed_when_it_is_repeated():
    store, due = delivered(), [kit.balance("A"), kit.balance("B")]
    options = {"timezone": "UTC", "max_rows": 1}
    cut = kit.FakeTransport(kit.response(OK), ConnectionFailed("down"))
    with pytest.raises(ConnectionFailed):
        kit.run(kit.elven(cut, **options), store, due, redeliver=True)
    # Without it, what is left is said and not sent.
    quiet = kit.run(kit.elven(kit.FakeTransport(None), **options), store, due)
    assert (quiet.requests, quiet.other_keys) == (0, 2)
    transport = kit.FakeTransport(kit.response(OK))
    summary = kit.run(kit.elven(transport, **options), store, due, redeliver=True)
    assert (summary.accepted_before, summary.accepted_now) == (1, 1)
    assert [row["symbol"] for row in transport.rows()] == ["B"]


def test_what_a_cut_off_redelivery_left_under_a_key_that_another_balance_has_by_now_is_sent_under_its_own():
    """From UTC to Shanghai, eight hours apart: the new text of the first is the old text of the second."""
    store, due = MemoryStore(), [kit.balance("A", at_ms=kit.CLOSE_MS - 8 * 3_600_000), kit.balance("A", "2")]
    kit.run(kit.elven(kit.FakeTransport(kit.response(OK)), timezone="UTC"), store, due)
    cut = kit.FakeTransport(kit.response(OK), ConnectionFailed("down"))
    with pytest.raises(ConnectionFailed):
        kit.run(kit.elven(cut, max_rows=1), store, due, redeliver=True)
    transport = kit.FakeTransport(kit.response(OK))
    summary = kit.run(kit.elven(transport), store, due)
    assert [(row["datetime"], str(row["balance"])) for row in transport.rows()] == [("2026-11-21 08:00:00", "2")]
    # The first one's old text is nobody's by now, and still held.
    assert (summary.accepted_now, summary.other_keys, summary.example[:26]) == (1, 1, "A 2026-11-20T16:00:00.000Z")
    assert kit.run(kit.elven(kit.FakeTransport(None)), store, due).requests == 0


# --- other settings that leave the place and its keys alone ---


def settings() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """An Amlyze destination's options before and after."""
    return [
        ({}, {"account_ext_id": "NEW-{asset}"}),
        ({}, {"balance_type": "closing"}),
        ({"business_unit": "old"}, {"business_unit": "new"}),
        ({"business_unit": "old"}, {}),
        ({}, {"requester": "somebody else"}),
    ]


@pytest.mark.parametrize("index", range(5))
def test_what_was_delivered_with_other_settings_is_kept_and_counted_until_it_is_redelivered(index):
    before, after = settings()[index]
    harness, store, lines = AmlyzeHarness(), MemoryStore(), []
    due = [kit.balance("A0"), kit.balance("A1")]
    kit.run(harness.destination(**before), store, due)
    kept = kit.run(harness.destination(**after), store, [*due, kit.balance("A2")], log=lines.append)
    assert (kept.accepted_before, kept.accepted_now, kept.other_keys, kept.example[:2]) == (2, 1, 2, "A0")
    assert any('{"redeliver": true}' in line for line in lines)
    again = kit.run(harness.destination(**after), store, [*due, kit.balance("A2")], redeliver=True)
    # What is held under old keys stays there.
    left = 2 if "account_ext_id" in after else 0
    assert (again.accepted_before, again.accepted_now, again.superseded, again.other_keys) == (1, 2, 2, left)
    numbers = [kept.number.rpartition("-")[2] for kept in harness.there.delivered]
    assert sorted(numbers) == ["1", "1", "1", "2", "2"]
    attempts = [kit.folded(store).balances[asset, kit.CLOSE_MS][-1].row for asset in ("A0", "A1")]
    assert all((row.replaces[-2:], row.supersedes) == ("-1", "1.5") for row in attempts)
    # Once it is right, it is done.
    for redeliver in (True, False):
        done = kit.run(harness.destination(**after), store, [*due, kit.balance("A2")], redeliver=redeliver)
        assert (done.requests, done.other_keys) == (0, left)


def test_an_equivalent_that_came_late_is_kept_out_and_counted_until_it_is_redelivered():
    harness, store = AmlyzeHarness(), MemoryStore()
    without, due = kit.balance("A0"), [msgspec.structs.replace(kit.balance("A0"), equivalent=Decimal("3.10"))]
    kit.run(harness.destination(), store, [without])
    kept = kit.run(harness.destination(), store, due)
    assert (kept.requests, kept.other_keys) == (0, 1)
    assert kit.run(harness.destination(), store, due, redeliver=True).superseded == 1


def test_a_corrected_mapping_leaves_what_was_delivered_and_counts_it():
    store, transport = delivered(), kit.FakeTransport(kit.response(OK))
    mapped = kit.elven(transport, assets={"B": {"symbol": "XB"}})
    summary = kit.run(mapped, store, [kit.balance("A"), kit.balance("B")])
    assert (summary.requests, summary.accepted_before, summary.other_keys) == (0, 2, 1)
    assert summary.example.startswith("B ")
    summary = kit.run(mapped, store, [kit.balance("A"), kit.balance("B")], redeliver=True)
    assert [row["symbol"] for row in transport.rows()] == ["XB"]
    assert (summary.accepted_now, summary.accepted_before, summary.other_keys) == (1, 1, 1)


def test_what_may_have_arrived_under_another_key_goes_again_as_it_was_and_is_counted():
    store = MemoryStore()
    lost = kit.FakeTransport(ResponseLost("gone"))
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.elven(lost), store, [kit.balance("B")])
    transport = kit.FakeTransport(kit.response(OK))
    mapped = kit.elven(transport, assets={"B": {"symbol": "XB"}})
    summary = kit.run(mapped, store, [kit.balance("B")])
    assert transport.requests[0].body == lost.requests[0].body
    assert (summary.accepted_now, summary.other_keys) == (1, 1)
    kit.run(mapped, store, [kit.balance("B")], redeliver=True)
    assert [row["symbol"] for row in transport.rows()] == ["XB"]


def test_a_rejection_under_the_old_mapping_is_no_delivery_under_another_key():
    store = MemoryStore()
    with pytest.raises(RecordsRejected):
        kit.run(
            kit.elven(kit.FakeTransport(kit.response({"status": "failed", "data": {"code": 1}}, 400))),
            store,
            [kit.balance("B")],
        )
    mapped = kit.elven(kit.FakeTransport(kit.response(OK)), assets={"B": {"symbol": "XB"}})
    summary = kit.run(mapped, store, [kit.balance("B")])
    assert (summary.accepted_now, summary.other_keys, summary.superseded) == (1, 0, 0)


def test_what_was_delivered_and_is_no_longer_asked_for_is_counted():
    store = delivered()
    summary = kit.run(kit.elven(kit.FakeTransport(None)), store, [kit.balance("A")])
    assert (summary.rows, summary.accepted_before, summary.other_keys, summary.example[:1]) == (1, 1, 1, "B")


@pytest.mark.parametrize("now", [{"account_ext_id": {"A": "1"}}, {"assets": {"B": "ignore"}}])
def test_what_is_held_of_an_asset_that_is_no_longer_sent_is_counted(now):
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    mapped = {"account_ext_id": {"A": "1", "B": "2"}}
    due = [kit.balance("A"), kit.balance("B")]
    kit.run(kit.amlyze(kit.FakeTransport(server), **mapped), store, due)
    summary = kit.run(kit.amlyze(kit.FakeTransport(None), **mapped | now, max_rejected=1), store, due)
    assert (summary.requests, summary.other_keys, summary.example[:1]) == (0, 1, "B")


def test_what_is_left_under_an_old_key_is_counted_after_the_balance_went_to_its_new_one():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(kit.amlyze(kit.FakeTransport(server), account_ext_id={"A": "OLD"}), store, [kit.balance("A", "1")])
    target = kit.amlyze(kit.FakeTransport(server), account_ext_id={"A": "NEW"})
    for sent in (1, 0):
        summary = kit.run(target, store, [kit.balance("A", "2")])
        assert (summary.requests, summary.other_keys, summary.example[-28:]) == (
            sent,
            1,
            "OLD 2026-11-21T00:00:00.000Z",
        )
    assert [(each["accountExtId"], str(each["value"])) for each in server.accepted] == [("OLD", "1"), ("NEW", "2")]


def test_after_a_rekey_a_corrected_balance_drives_out_what_stands_under_its_new_key():
    """Hour texts one hour apart: the new text of the eleventh hour is the old text of the tenth."""
    store, held, hour_ms = MemoryStore(), {}, 3_600_000

    def tenant(body):
        held.update({row["datetime"][-8:]: row["balance"] for row in json.loads(body, parse_float=str, parse_int=str)})
        return kit.response(OK)

    def due(eleventh: str) -> list[Balance]:
        first = kit.CLOSE_MS - 24 * hour_ms
        return [kit.balance("A", "10", first + 10 * hour_ms), kit.balance("A", eleventh, first + 11 * hour_ms)]

    transport = kit.FakeTransport(tenant)
    kit.run(kit.elven(transport, timezone="Asia/Shanghai"), store, due("11"))
    changed = kit.elven(transport, timezone="Asia/Bangkok")
    place(store, changed).rekey("Ada", "the texts were right")
    summary = kit.run(changed, store, due("11.5"))
    # The old text of the eleventh hour is nobody's by now.
    assert held == {"17:00:00": "10", "18:00:00": "11.5", "19:00:00": "11"}
    assert (summary.accepted_now, summary.other_keys) == (2, 1)
    assert kit.run(changed, store, due("11.5")).requests == 0
