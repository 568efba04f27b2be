"""How a delivery deals with what goes wrong, as the accounts file says it; and the destination webhook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balance_bridge.accounts import AccountsFile, Equivalent, WebhookDestination
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.destination import Credentials
from balance_bridge.load.elven import Elven
from balance_bridge.transport import Transport

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]

WEBHOOK = """\
      ledger:
        type: webhook
        conn_id: webhook_default
"""
NUMBERS = {
    "max_rejected": ("a whole number from 0 to 1000000", ["-1", "1000001"], ["0", "1000000"]),
    "timeout_s": ("a whole number from 1 to 600", ["0", "601"], ["1", "600"]),
}
NO_NUMBERS = ["1.5", "1.0", "1e2", "'ten'", "true", "no", "[1]", "{a: 1}", "''", "null", "0x10", "1_0", "007", "+5"]
NO_NUMBERS += [".inf", "24h", "30 s", "9" * 18, "9" * 5000]


def at_elven(text: str) -> dict[int, str]:
    return {13: f"        timezone: Asia/Shanghai\n        {text}"}


def at_amlyze(text: str) -> dict[int, str]:
    return {16: f"        requester: treasury\n        {text}"}


def told(load: Load, text: str) -> str:
    file = load(text)
    assert list(file.accounts) == ["other"], "the other account is whole"
    return file.broken["main_cash"].message


def test_without_the_keys_no_rejection_is_tolerated(load: Load, base: Base) -> None:
    for target in load(base()).accounts["main_cash"].destinations.values():
        assert (target.max_rejected, target.on_unconfirmed) == (0, "warn")
        assert (target.bisect_codes, target.timeout_s) == (None, 30)


@pytest.mark.parametrize("key", ["requests_per_minute", "max_in_flight"])
def test_a_key_that_earlier_releases_had_is_unknown(load: Load, base: Base, file: Path, key: str) -> None:
    message = told(load, base(at_elven(f"{key}: 3")))
    assert message.startswith(f"{file}:14: accounts.main_cash.destinations.elven.{key}: '{key}': unknown key")


@pytest.mark.parametrize("where", ["elven", "amlyze"])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_within_its_limits_is_taken(load: Load, base: Base, key: str, where: str) -> None:
    for text in NUMBERS[key][2]:
        place = at_elven if where == "elven" else at_amlyze
        for written in (text, f"'{text}'", f'"{text}"'):
            target = load(base(place(f"{key}: {written}"))).accounts["main_cash"].destinations[where]
            assert getattr(target, key) == int(text)


@pytest.mark.parametrize("key", NUMBERS)
def test_what_is_no_number_within_the_limits_is_told_with_what_is_allowed(
    load: Load, base: Base, file: Path, key: str
) -> None:
    allowed, beyond, _ = NUMBERS[key]
    for text in (*NO_NUMBERS, *beyond):
        message = told(load, base(at_elven(f"{key}: {text}")))
        assert message.startswith(f"{file}:14: accounts.main_cash.destinations.elven.{key}: "), text
        assert allowed in message


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("[]", ()),
        ("[O001]", ("O001",)),
        ("[001, O001]", ("001", "O001")),
        ("['19734', 10001]", ("19734", "10001")),
        ("[NO, 1e5]", ("NO", "1e5")),
        ("[400, 422, 4010, '50']", ("400", "422", "4010", "50")),
    ],
)
def test_codes_are_text_as_they_stand(load: Load, base: Base, text: str, codes: tuple[str, ...]) -> None:
    target = load(base(at_amlyze(f"bisect_codes: {text}"))).accounts["main_cash"].destinations["amlyze"]
    assert target.bisect_codes == codes


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("O001", "bisect_codes", "'O001'"),
        ("{O001: true}", "bisect_codes", "a mapping"),
        ("['']", "bisect_codes[0]", "''"),
        ("[O001, [a]]", "bisect_codes[1]", "a list"),
        ("['a b']", "bisect_codes[0]", "'a b'"),
        (f"[{'x' * 61}]", "bisect_codes[0]", f"'{'x' * 61}'"),
    ],
)
def test_what_is_no_list_of_codes_is_told(load: Load, base: Base, file: Path, text: str, key: str, value: str) -> None:
    message = told(load, base(at_elven(f"bisect_codes: {text}")))
    assert message.startswith(f"{file}:14: accounts.main_cash.destinations.elven.{key}: {value}: ")
    assert "a list of error codes as text" in message


@pytest.mark.parametrize("code", ["401", "403", "404", "429", "500", "503", "'599'"])
def test_a_code_that_is_about_no_record_is_refused(load: Load, base: Base, file: Path, code: str) -> None:
    for place, line, name in ((at_elven, 14, "elven"), (at_amlyze, 17, "amlyze")):
        message = told(load, base(place(f"bisect_codes: [E9, {code}]")))
        where = f"{file}:{line}: accounts.main_cash.destinations.{name}.bisect_codes[1]: '{code.strip(chr(39))}': "
        assert message.startswith(f"{where}says nothing of a record")
        assert "without 401, 403, 404, 429 and 500 to 599" in message


@pytest.mark.parametrize("text", ["warn", "fail", "'fail'"])
def test_what_is_not_confirmed_is_told_or_fails(load: Load, base: Base, text: str) -> None:
    target = load(base(at_elven(f"on_unconfirmed: {text}"))).accounts["main_cash"].destinations["elven"]
    assert target.on_unconfirmed == text.strip("'")


@pytest.mark.parametrize("text", ["no", "true", "red", "Fail", "[fail]", "''"])
def test_another_word_for_what_is_not_confirmed_is_refused(load: Load, base: Base, file: Path, text: str) -> None:
    message = told(load, base(at_elven(f"on_unconfirmed: {text}")))
    assert message.startswith(f"{file}:14: accounts.main_cash.destinations.elven.on_unconfirmed: ")
    assert "warn, fail" in message


def test_a_destination_goes_by_what_the_file_says_and_by_the_api_s_own_where_it_says_nothing(
    load: Load, base: Base
) -> None:
    targets: Any = load(base(at_elven("bisect_codes: [E9]\n        timeout_s: 7"))).accounts["main_cash"].destinations
    credentials = Credentials("https://api.example", "key", "secret")
    elven = Elven(targets["elven"], credentials, Transport())
    assert (elven.config, elven.name, elven.bisect_codes) == (targets["elven"], "elven", {"E9"})
    assert (elven.max_rows, elven.max_bytes, elven.timeout_s(0)) == (1000, 100_000, 7)
    amlyze = Amlyze(targets["amlyze"], credentials, Transport())
    assert (amlyze.bisect_codes, amlyze.max_rows, amlyze.timeout_s(0)) == (Amlyze.default_bisect_codes, 100, 30)


@pytest.mark.parametrize(
    ("text", "equivalent"),
    [
        ("{prices: prices.csv}", Equivalent(prices="prices.csv")),
        (
            "{prices: s3://aws@bucket/p.parquet, max_age: 90min, digits: 0}",
            Equivalent.model_construct(prices="s3://aws@bucket/p.parquet", max_age=5400, digits=0),
        ),
        (
            "{prices: p.csv, max_age: 2d, digits: 18}",
            Equivalent.model_construct(prices="p.csv", max_age=172_800, digits=18),
        ),
    ],
)
def test_an_equivalent_has_prices_an_age_and_digits(load: Load, base: Base, text: str, equivalent: Equivalent) -> None:
    target: Any = load(base(at_amlyze(f"equivalent: {text}"))).accounts["main_cash"].destinations["amlyze"]
    found = target.equivalent
    assert (found.prices, found.max_age, found.digits) == (equivalent.prices, equivalent.max_age, equivalent.digits)


def test_without_the_key_no_equivalent_is_told_and_a_price_may_be_a_day_old(load: Load, base: Base) -> None:
    target: Any = load(base()).accounts["main_cash"].destinations["amlyze"]
    assert target.equivalent is None
    assert (Equivalent(prices="p.csv").max_age, Equivalent(prices="p.csv").digits) == (86_400, 2)


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("{max_age: 24h}", ".prices", "the path or URL of a CSV or Parquet file"),
        ("{prices: ''}", ".prices", "the path or URL of a CSV or Parquet file"),
        ("{prices: [a]}", ".prices", "the path or URL of a CSV or Parquet file"),
        ("{prices: p.csv, max_age: 24}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: '86400'}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: 24 h}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: 100000h}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: [24h]}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: true}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: 0h}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: -1h}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: 1.5h}", ".max_age", "such as 24h"),
        ("{prices: p.csv, max_age: 1w}", ".max_age", "such as 24h"),
        ("{prices: p.csv, digits: -1}", ".digits", "a whole number from 0 to 18"),
        ("{prices: p.csv, digits: 19}", ".digits", "a whole number from 0 to 18"),
        ("{prices: p.csv, digits: 2.0}", ".digits", "a whole number from 0 to 18"),
        ("{prices: p.csv, digit: 2}", ".digit", "prices, max_age, digits"),
        ("p.csv", "", "a mapping with prices"),
        ("[p.csv]", "", "a mapping with prices"),
    ],
)
def test_what_is_no_equivalent_is_told(load: Load, base: Base, file: Path, text: str, key: str, allowed: str) -> None:
    message = told(load, base(at_amlyze(f"equivalent: {text}")))
    assert message.startswith(f"{file}:17: accounts.main_cash.destinations.amlyze.equivalent{key}: ")
    assert allowed in message


@pytest.mark.parametrize(("place", "known"), [(at_elven, "entity_account_id"), (at_amlyze, "requester")])
def test_only_amlyze_can_be_told_what_balances_are_worth(load: Load, base: Base, place: Any, known: str) -> None:
    text = base(place("equivalent: {prices: p.csv}"))
    if known == "requester":
        assert load(text).broken == {}
    else:
        assert "equivalent: 'equivalent': unknown key" in told(load, text)


def test_a_webhook_needs_nothing_but_its_connection(load: Load, base: Base) -> None:
    account = load(base({9: f"{WEBHOOK}      elven:"})).accounts["main_cash"]
    assert account.destinations["ledger"] == WebhookDestination(name="ledger", conn_id="webhook_default")
    ledger: Any = account.destinations["ledger"]
    assert (ledger.points, ledger.timezone, ledger.max_rows, ledger.max_bytes) == (("close",), "UTC", 500, 1_000_000)


def test_any_number_of_webhooks_may_share_a_connection(load: Load, base: Base) -> None:
    again = WEBHOOK.replace("ledger", "archive")
    loaded = load(
        base(
            {
                9: f"{WEBHOOK}{again}      elven:",
                22: f"{WEBHOOK}      amlyze: {{conn_id: amlyze_default, requester: us, account_ext_id: 'X-{{asset}}'}}",
            }
        )
    )
    assert loaded.broken == {}
    assert set(loaded.accounts["other"].destinations) == {"ledger", "amlyze"}


@pytest.mark.parametrize(
    ("text", "key", "value", "fault", "allowed"),
    [
        ("max_bytes: 999", "max_bytes", "'999'", "", "a whole number from 1000 to 10000000"),
        ("max_rows: 0", "max_rows", "'0'", "", "a whole number from 1 to 10000"),
        ("assets: {BTC: {symbol: X}}", "assets.BTC", "a mapping", "", "to ignore"),
        ("source_id: x", "source_id", "'source_id'", "unknown key", "conn_id"),
        ("url: https://ledger.example", "url", "'url'", "unknown key", "conn_id"),
        ("timezone: Mars", "timezone", "'Mars'", "is not a time zone", "Area/City"),
    ],
)
def test_what_a_webhook_does_not_have_is_told(
    load: Load, base: Base, file: Path, text: str, key: str, value: str, fault: str, allowed: str
) -> None:
    message = told(load, base({9: f"{WEBHOOK}        {text}\n      elven:"}))
    assert message.startswith(f"{file}:12: accounts.main_cash.destinations.ledger.{key}: {value}: ")
    assert fault in message
    assert allowed in message
