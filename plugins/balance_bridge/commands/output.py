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
from typing import IO, Any, Literal

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
        records: All with the same keys. The key ``colour`` is not shown: ``red`` for a record that is wrong, ``yellow``
            for one to look at, ``dim`` for history.
        columns: Head of each column of the table, and the key that it shows. The last one may be folded.
        fields: The keys that JSON and CSV have; those of the table if there is nothing more.
        verdict: The line above, if there is one to say.
        remarks: Lines below.
        optional: Keys of columns that a terminal without room for them does not show.
    """

    records: Sequence[Record]
    columns: Mapping[str, str]
    fields: Sequence[str] = ()
    verdict: str = ""
    remarks: Sequence[str] = ()
    optional: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that a check looked at.

    Attributes:
        what: The thing.
        message: What was seen and, if it is not right, what to do.
        state: ``right``, ``wrong``, or a check's own word for what it found.
        colour: ``red`` if it is wrong, ``yellow`` if somebody should look at it.
    """

    what: str
    message: str
    state: str = "wrong"
    colour: str = "red"

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return self.colour != "red"


def right(what: str, message: str) -> Finding:
    """The finding that something is right."""
    return Finding(what, message, "right", "")


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
    file: IO[str] | None = None

    def show(self, listing: Listing) -> None:
        """Write a listing. Where JSON or CSV is wanted, its lines go to standard error."""
        records = [each for each in listing.records if not self.quiet or each.get("colour") in _TO_LOOK_AT]
        file = self.file or sys.stdout
        lines_to = file if self.form == "table" else sys.stderr
        if listing.verdict and (records or not self.quiet):
            print(printable(listing.verdict), file=lines_to)
        if self.form == "table":
            if records:
                _print_table(listing, records, file)
        else:
            fields = listing.fields or list(listing.columns.values())
            rows = [{name: record[name] for name in fields} for record in records]
            if self.form == "json":
                # Non-ASCII characters as escapes: no terminal obeys them, and every reader of JSON gives them back.
                print(json.dumps(rows, indent=1, default=_amount), file=file)
            else:
                writer = csv.DictWriter(file, fields, lineterminator="\n")
                writer.writeheader()
                writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
        for line in () if self.quiet else listing.remarks:
            print(printable(line), file=lines_to)

    def show_findings(self, findings: Iterable[Finding], verdict: str, remarks: Sequence[str] = ()) -> int:
        """Show what a check found.

        Returns:
            The exit code: 1 if anything is wrong.
        """
        records = [vars(each) for each in findings]
        columns = {"state": "state", "what": "what", "finding": "message"}
        self.show(Listing(records, columns, verdict=verdict, remarks=remarks))
        return int(any(record["colour"] == "red" for record in records))


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


def _print_table(listing: Listing, records: Sequence[Record], file: IO[str]) -> None:
    """Only the last column is folded: a narrow terminal breaks a line before an amount or a number is cut."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, emoji=False, highlight=False)
    widths = {
        key: max(cell_len(head), *(cell_len(_text(record[key])) for record in records)) + _GAP
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
            is_amount = any(isinstance(record[key], Decimal | int) for record in records)
            least = None if key == last else widths[key] - _GAP
            justify: Literal["left", "right"] = "right" if is_amount else "left"
            table.add_column(head, justify=justify, min_width=least, no_wrap=key != last, overflow="fold")
    for record in records:
        table.add_row(*(Text(_text(record[key])) for key in widths), style=record.get("colour"))
    with console.capture() as captured:
        console.print(table)
    # Not by the console: a pipe that was closed is for the command line's entry to see.
    file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return _amount(value)
    return "" if value is None else printable(str(value))
