"""How every command shows what it found: one list of records, as a table, as JSON or as CSV.

Text from outside must not act where it is shown, neither in a terminal nor in a spreadsheet.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TextIO

Record = Mapping[str, Any]
"""One row. An amount is a ``Decimal``, so that it is shown exactly and never taken for text."""

FORMATS = ("table", "json", "csv")
# With one of these in front, a spreadsheet takes a cell for a formula and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# The last column of a table may be folded, but not into less than this.
_LEAST_LAST_WIDTH = 24
_GAP = 2
_TO_LOOK_AT = ("red", "yellow")


@dataclass(frozen=True)
class Listing:
    """Records, and how a table shows them.

    Attributes:
        records: All with the same keys; JSON and CSV have every key.
        columns: Head of each column of the table, and the key that it shows. The last one may be folded.
        colours: ``red`` for a record that is wrong, ``yellow`` for one to look at, ``dim`` for history; one per record.
        verdict: The line above, if there is one to say.
        remarks: Lines below.
        optional: Keys of columns that a terminal without room for them does not show.
    """

    records: Sequence[Record]
    columns: Mapping[str, str]
    colours: Sequence[str] = ()
    verdict: str = ""
    remarks: Sequence[str] = ()
    optional: Sequence[str] = ()


@dataclass(frozen=True)
class Output:
    """How to show a listing.

    Attributes:
        form: ``table``, ``json`` or ``csv``.
        quiet: Show only what is wrong or to look at; nothing if that is nothing.
        file: Where to; standard output if None.
    """

    form: str = "table"
    quiet: bool = False
    file: TextIO | None = None

    def show(self, listing: Listing, fields: Sequence[str] = ()) -> None:
        """Write a listing.

        Args:
            listing: What to show. Where JSON or CSV is wanted, its lines go to standard error.
            fields: The records' keys, for the head of a CSV file without records.
        """
        colours = listing.colours or [""] * len(listing.records)
        chosen = [
            each for each in zip(listing.records, colours, strict=True) if not self.quiet or each[1] in _TO_LOOK_AT
        ]
        records = [record for record, _ in chosen]
        wants_lines = bool(chosen) or not self.quiet
        file = self.file or sys.stdout
        lines_to = file if self.form == "table" else sys.stderr
        if wants_lines and listing.verdict:
            print(printable(listing.verdict), file=lines_to)
        if self.form == "json":
            # Non-ASCII characters as escapes: no terminal obeys them, and every reader of JSON gives them back.
            print(json.dumps(records, indent=1, default=_amount), file=file)
        elif self.form == "csv":
            _write_csv(file, records, fields or list(records[0] if records else listing.columns.values()))
        elif chosen:
            _print_table(listing, chosen)
        for line in () if self.quiet else listing.remarks:
            print(printable(line), file=lines_to)


def printable(text: str) -> str:
    r"""The text on one line, each control character as an escape such as ``\x1b``: a terminal would obey it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def csv_cell(value: Any) -> Any:
    """A value as a CSV file may hold it: a spreadsheet shows text and does not run it."""
    if isinstance(value, Decimal):
        return _amount(value)
    if isinstance(value, str):
        return f"'{printable(value)}" if value.startswith(_FORMULA) else printable(value)
    return value


def _amount(value: Decimal) -> str:
    return format(value, "f")


def _write_csv(file: TextIO, records: Iterable[Record], fields: Sequence[str]) -> None:
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: csv_cell(value) for name, value in record.items()})


def _print_table(listing: Listing, chosen: Sequence[tuple[Record, str]]) -> None:
    """Only the last column is folded: a narrow terminal breaks a line before an amount or a number is cut."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(emoji=False, highlight=False)
    widths = {
        key: max(cell_len(head), *(cell_len(_text(record[key])) for record, _ in chosen)) + _GAP
        for head, key in listing.columns.items()
    }
    *_, last = widths
    if console.is_terminal:
        widths[last] = min(widths[last], _LEAST_LAST_WIDTH)
        if sum(widths.values()) > console.width:
            widths = {key: width for key, width in widths.items() if key not in listing.optional}
        console.width = max(console.width, sum(widths.values()))
    else:
        console.width = sum(widths.values())
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for head, key in listing.columns.items():
        if key in widths:
            is_amount = any(isinstance(record[key], Decimal) for record, _ in chosen)
            least = None if key == last else widths[key] - _GAP
            justify: Literal["left", "right"] = "right" if is_amount else "left"
            table.add_column(head, justify=justify, min_width=least, no_wrap=key != last, overflow="fold")
    for record, colour in chosen:
        table.add_row(*(Text(_text(record[key])) for key in widths), style=colour)
    with console.capture() as captured:
        console.print(table)
    # Not by the console: a pipe that was closed is for the command line's entry to see.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return _amount(value)
    return "" if value is None else printable(str(value))
