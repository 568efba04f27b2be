"""One thing that is wrong in the accounts file, and how a message shows it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and list indices (from 0) that lead from the top of the file to a value."""

_SHOWN_CHARACTERS = 80
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Up to the last "@": a password may hold anything.
_URL_LOGIN = re.compile(r"://.*@", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place.

    Attributes:
        line: Line in the file, from 1.
        path: Where, from the top of the file.
        value: What stands there, as :func:`describe` shows it.
        fault: What is wrong with it.
        allowed: What may stand there.
    """

    line: int
    path: Path
    value: str
    fault: str
    allowed: str

    def text(self, file: str = "") -> str:
        """The problem as one line: ``FILE:LINE: key.path: VALUE: what is wrong; allowed: ...``.

        Args:
            file: The file's name; without it the line begins with ``line LINE``.
        """
        at = f"{file}:{self.line}" if file else f"line {self.line}"
        return f"{at}: {dotted(self.path)}: {self.value}: {self.fault}; allowed: {self.allowed}"


def dotted(path: Path) -> str:
    """The path as a person writes it, such as ``accounts.main_cash.destinations.elven.points[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _PLAIN_KEY.fullmatch(part) and len(part) <= _SHOWN_CHARACTERS else describe(part)
            text += f".{shown}" if text else shown
    return text


def describe(value: object) -> str:
    """A value for a message: bounded, on one line, without the contents of mappings (but a step's) and lists.

    A URL's login is masked and nested values are not spelled out, because a secret that somebody put into the wrong
    file must not travel on into a log.
    """
    if isinstance(value, dict):
        if list(value) == ["every"] and isinstance(value["every"], str):
            return f"{{every: {describe(value['every'])}}}"
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = _URL_LOGIN.sub("://***@", str(value))
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}..."
    return repr(text)


def did_you_mean(text: str, candidates: Iterable[str]) -> str:
    """``", did you mean X?"`` where candidates resemble the text (case does not count), else nothing."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(text.lower()[:_SHOWN_CHARACTERS], by_lower, n=3)
    return f", did you mean {' or '.join(by_lower[name] for name in close)}?" if close else ""
