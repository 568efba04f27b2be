from __future__ import annotations

import ast
import json
import pickle
import re
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import balance_bridge
from balance_bridge import money
from balance_bridge.errors import InvalidAmount

PACKAGE = Path(balance_bridge.__file__).parent
MOST = 10**38 - 1


@st.composite
def representable(draw: st.DrawFn) -> Decimal:
    """Every amount that fits, in every form that Decimal has for it."""
    units = draw(st.one_of(st.integers(-MOST, MOST), st.integers(-1000, 1000), st.sampled_from([MOST, -MOST, 0])))
    exact = Decimal(units).scaleb(-18, money.EXACT)
    form = draw(st.sampled_from(["as it is", "normal", "more zeros", "negative zero"]))
    if form == "normal":
        return exact.normalize(money.EXACT)
    if form == "more zeros":
        return exact.quantize(Decimal((0, (1,), -draw(st.integers(19, 30)))), context=money.EXACT)
    return Decimal("-0E-7") if form == "negative zero" and not units else exact


@settings(deadline=None)
@given(representable())
def test_every_representable_amount_survives_writing_and_parsing(amount: Decimal) -> None:
    parsed = money.parse(money.to_text(amount))
    assert parsed == amount
    assert parsed == money.parse(str(amount))


@settings(deadline=None)
@given(representable())
def test_written_amounts_are_plain_json_numbers(amount: Decimal) -> None:
    text = money.to_text(amount)
    assert re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text)
    assert text != "-0"
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == amount


@settings(deadline=None)
@given(representable())
def test_equal_amounts_have_one_form(amount: Decimal) -> None:
    checked = money.check(amount)
    assert str(checked) == str(money.parse(money.to_text(amount)))
    assert not (checked.is_zero() and checked.is_signed())


@settings(deadline=None)
@given(representable())
def test_the_context_of_the_thread_changes_nothing(amount: Decimal) -> None:
    with localcontext(Context(prec=3, rounding=ROUND_DOWN)):
        text = money.to_text(amount)
        assert money.parse(text).as_tuple() == money.check(amount).as_tuple()
    assert text == money.to_text(amount)


@settings(deadline=None)
@given(
    st.text("0123456789", min_size=1, max_size=60),
    st.text("0123456789", max_size=120),
    st.sampled_from(["", "+", "-"]),
    st.one_of(st.none(), st.integers(-999, 999)),
)
@example("0", "1" * 90, "", None)
@example("99999999999999999999", "999999999999999999", "-", None)
@example("99999999999999999999", "9" * 19, "", None)
@example("1", "", "", -999)
def test_text_of_the_right_form_is_read_exactly_or_refused(
    whole: str, fraction: str, sign: str, exponent: int | None
) -> None:
    text = f"{sign}{whole}{'.' + fraction if fraction else ''}{'' if exponent is None else f'e{exponent}'}"
    exact = Decimal(text)
    with localcontext(Context(prec=2000)):
        fits = abs(exact) < 10**20 and exact == exact.quantize(Decimal("1e-18"))
    if fits:
        assert money.parse(text) == exact
    else:
        with pytest.raises(InvalidAmount):
            money.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "nan", "sNaN", "Infinity", "-inf", "", " ", " 1", "1 ", "1\n", "\n1", "1\t", "1_0", "1,5", "1.", ".5"),
        *("+", "-", "--1", "1e", "1e5.5", "1E1000", "0x10", "1e+ 5", "$1", "1/2", "(1)", "1.2.3", "null", "\x001"),
        *("\u0661\u0662", "\uff11", "1\u00b2", "\u2212" + "1", "1\u00a0"),
    ],
)
def test_text_that_is_no_amount_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidAmount, match="is not an amount") as caught:
        money.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [True, False, 1, 0, 1.5, None, b"1", Decimal(1), ["1"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidAmount):
        money.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0." + "0" * 18 + "1", "1E-19", "123.4567890123456789012", "1e-999", "0." + "1" * 90])
def test_more_than_18_decimals_are_refused_not_rounded(text: str) -> None:
    with pytest.raises(InvalidAmount, match="more than 18 decimals"):
        money.parse(text)


@pytest.mark.parametrize("text", ["100000000000000000000", "-1e20", "1e999", "9" * 21, "1" * 90 + ".5"])
def test_more_than_20_digits_before_the_point_are_refused(text: str) -> None:
    with pytest.raises(InvalidAmount, match="more than 20 digits before the point"):
        money.parse(text)


@pytest.mark.parametrize("text", ["0e-999", "0e999", "0" * 200 + "7", "10E-19", "1." + "0" * 99])
def test_zeros_that_say_nothing_are_accepted(text: str) -> None:
    assert money.parse(text) == Decimal(text)


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_only_finite_amounts_are_written(amount: Decimal) -> None:
    with pytest.raises(InvalidAmount, match="finite"):
        money.to_text(amount)


def test_a_message_about_a_huge_text_stays_short() -> None:
    for text in ("x" * 100_000, "9" * 100_000, "0." + "9" * 100_000):
        with pytest.raises(InvalidAmount) as caught:
            money.parse(text)
        assert len(str(caught.value)) < 300


def test_errors_can_cross_a_process_border() -> None:
    with pytest.raises(InvalidAmount) as caught:
        money.parse("x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --- no float near an amount: the guard reads the code itself ---

# Found by pattern, so that new modules are guarded as well.
GUARDED = sorted(
    path.relative_to(PACKAGE).as_posix()
    for pattern in ("money.py", "store.py", "daily.py", "intraday.py", "extract/*.py", "transform/*.py", "load/*.py")
    for path in PACKAGE.glob(pattern)
)
# What these read was written by this package with amounts as text, or holds none.
NO_AMOUNTS = {"extract/raw.py", "store.py"}
# A float may stand in a line that says that it is about seconds.
SECONDS = re.compile(
    r"(?i)_s\b|_?\bseconds\b|_seconds\b|\b(sent|ended|known|server|fetched)_at\b|\bdef now\(|\bwait\b|\bdoubling\b"
)


def floats(source: str) -> list[str]:
    """The lines in which a float is written, named or made, but for those about seconds."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or ""
        literal = isinstance(node, ast.Constant) and isinstance(node.value, (float, complex))
        if literal or re.fullmatch(r"(float|double|half)(_?[0-9]*)|single|real", name):
            found.append(lines[node.lineno - 1].strip())
    return [line for line in found if not SECONDS.search(line)]


def inexact_json(source: str) -> list[str]:
    """The calls that read JSON and let its numbers become floats."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loads = [call for call in calls if re.fullmatch(r"json\.loads?|loads?", ast.unparse(call.func))]
    return [ast.unparse(call) for call in loads if "parse_float" not in {keyword.arg for keyword in call.keywords}]


@pytest.mark.parametrize("module", GUARDED)
def test_no_module_that_handles_amounts_uses_a_float(module: str) -> None:
    assert floats((PACKAGE / module).read_text()) == []


@pytest.mark.parametrize("module", sorted(set(GUARDED) - NO_AMOUNTS))
def test_json_is_never_read_into_floats(module: str) -> None:
    assert inexact_json((PACKAGE / module).read_text()) == []


def test_the_guard_sees_floats_and_lets_seconds_pass() -> None:
    for line in ("x = float(y)", "x = 0.5", "pa.float64()", "a.astype(np.double)", "balance: float", "f(amount=1.0)"):
        assert floats(line) == [line]
    for line in ("WAIT_S = 0.5", "f(timeout_s=2.0)", "sent_at: float", "x = 5"):
        assert floats(line) == []
    assert inexact_json("json.loads(x)\njson.loads(x, parse_float=Decimal)") == ["json.loads(x)"]


def test_the_guard_covers_every_room_that_handles_amounts() -> None:
    assert {"money.py", "extract/ascendex_responses.py", "transform/ledger.py"} < set(GUARDED)
    assert {"load/elven.py", "load/amlyze.py", "load/destination.py"} < set(GUARDED)
