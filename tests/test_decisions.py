"""What people decide is on record: written once, read as it was, and bound to what it is about."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from balance_bridge import decisions
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store

DAY = date(2026, 11, 20)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def decision(act: Act, proof: str = "", by: str = "alice") -> Decision:
    return Decision(act, by, "2026-11-21T08:00:00.000Z", "because", proof=proof)


def test_decisions_come_back_as_they_were_written_in_their_order(store: Store) -> None:
    made = [decision(Act.RERUN), decision(Act.APPROVED, "p1"), decision(Act.REFUSED, "p2", by="bob")]
    for each in made:
        decisions.record(store, "main", DAY, each)
    assert decisions.read(store, "main", DAY) == made
    assert decisions.read(store, "main", date(2026, 11, 21)) == []


def test_of_several_decisions_about_a_proof_the_last_counts_and_others_do_not(store: Store) -> None:
    for each in (decision(Act.APPROVED, "p1"), decision(Act.RERUN), decision(Act.REFUSED, "p1", by="bob")):
        decisions.record(store, "main", DAY, each)
    found = decisions.about(store, "main", DAY, "p1")
    assert found is not None
    assert (found.act, found.by) == (Act.REFUSED, "bob")
    assert decisions.about(store, "main", DAY, "p2") is None


def test_a_proof_that_differs_in_anything_has_another_digest() -> None:
    proof = {"status": "broken", "drift": {"BTC": "0.1"}}
    assert decisions.digest(proof) == decisions.digest({"drift": {"BTC": "0.1"}, "status": "broken"})
    assert decisions.digest(proof) != decisions.digest({**proof, "drift": {"BTC": "0.10"}})


@pytest.mark.parametrize("text", ['{"act": "approved"}', '{"act": "maybe", "by": "x", "at": "y"}', "nonsense"])
def test_what_is_no_decision_is_named_and_approves_nothing(store: Store, text: str) -> None:
    store.put(f"receipts/main/decisions/{DAY}/0001.json", text.encode())
    with pytest.raises(StoreDamaged, match="0001"):
        decisions.about(store, "main", DAY, "p1")


class Racing(Store):
    """A store in which somebody else decides first, once."""

    meanwhile: Decision | None = None

    def put(self, key: str, data: bytes) -> bool:
        if self.meanwhile is not None:
            other, self.meanwhile = self.meanwhile, None
            decisions.decide(self, "main", DAY, other)
        return super().put(key, data)


def test_of_two_people_who_decide_at_once_the_second_is_told_or_follows(tmp_path: Path) -> None:
    store = Racing(tmp_path)
    store.meanwhile = decision(Act.APPROVED, "p1", by="bob")
    assert decisions.decide(store, "main", DAY, decision(Act.REFUSED, "p1")).by == "bob", "an approval stands"
    assert [each.act for each in decisions.read(store, "main", DAY)] == [Act.APPROVED]
    store.meanwhile = decision(Act.REFUSED, "p2", by="bob")
    assert decisions.decide(store, "main", DAY, decision(Act.APPROVED, "p2")).by == "alice"
    found = decisions.about(store, "main", DAY, "p2")
    assert found is not None
    assert found.act is Act.APPROVED, "a refusal can be followed by an approval"
