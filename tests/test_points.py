from __future__ import annotations

import subprocess
import sys

import pytest

from balance_bridge.points import POINT_NAMES, parse_step_ms


@pytest.mark.parametrize(
    ("text", "step_ms"),
    [
        ("1h", 3_600_000),
        ("every 1h", 3_600_000),
        ("every 15min", 900_000),
        ("30s", 30_000),
        ("24h", 86_400_000),
        ("86400s", 86_400_000),
        ("01h", 3_600_000),
    ],
)
def test_a_step_that_divides_the_day_is_read_in_milliseconds(text: str, step_ms: int) -> None:
    assert parse_step_ms(text) == step_ms


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1",
            "h",
            "0h",
            "5h",
            "7min",
            "48h",
            "-1h",
            "1.5h",
            "1 h",
            "1d",
            "1H",
            "1h\n",
            "١h",
            "1h30min",
            "172800s",
        ),
        *("every", "every  1h", "every every 1h", "close", "9" * 5000 + "s"),
    ],
)
def test_a_step_that_is_no_step_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number of s, min or h that divides 24 h, such as 30s or 1h"):
        parse_step_ms(text)


def test_reading_points_loads_neither_pandas_nor_arrow() -> None:
    code = "import sys, balance_bridge.points; print(sorted({'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_names_of_points_are_the_public_ones() -> None:
    assert POINT_NAMES == ("open", "close", "changes", "local_midnight")
