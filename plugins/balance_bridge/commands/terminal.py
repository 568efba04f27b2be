"""Text that came from outside must not act where it is shown: neither in a terminal nor in a spreadsheet."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

#: Columns from which on a table shows everything.
WIDE = 200
# With one of these in front, a spreadsheet takes a cell for a formula and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def printable(text: str) -> str:
    r"""The text on one line, each control character as an escape such as ``\x1b``: a terminal would obey it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(text: str) -> str:
    """The text as rich may print it: printable, and without markup."""
    return escape(printable(text))


def cell(text: str) -> str:
    """The text as a CSV file may hold it: a spreadsheet shows it and does not run it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def wide_console() -> Console:
    """A console for tables: as wide as the terminal; where there is none, wide enough for all columns."""
    return Console(emoji=False, width=None if sys.stdout.isatty() else WIDE)
