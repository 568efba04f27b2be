"""What became of one communication number, and how several reports about it become one.

A number can be reported on more than once: a task was killed and tried again, or two copies of it were alive at the
same time. The reports are objects of a store, and their order says nothing about the order of the events. So the
fold does not look at it; the strongest report counts:

======== ============================================================================================
accepted the destination took the balance; nothing that is reported besides can undo that
rejected the destination, or a check before it, refused the balance; the number is used up
seen     the destination knows the number and does not say whether it took the balance (Amlyze's O005);
         settled, since sending it once more could only give the same answer
unknown  something was sent, and no whole or no usable answer came back
planned  on a receipt, and nothing more is known: killed before, while or after sending, or never reached
======== ============================================================================================

*rejected* outweighs *seen* because a number is used up by a refusal as well: of two live copies one may read the
refusal and the other "already used". A definite "nothing was sent" is no report at all: one copy of a task cannot
speak for the other, and what is merely planned is sent again under the same number either way.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a communication number ended, strongest first."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SEEN = "seen"
    UNKNOWN = "unknown"
    PLANNED = "planned"


_RANK = {status: rank for rank, status in enumerate(Status)}

SETTLED = frozenset({Status.ACCEPTED, Status.SEEN})
UNRESOLVED = frozenset({Status.UNKNOWN, Status.PLANNED})


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """One report about one number.

    Attributes:
        status: How it ended.
        code: The destination's error code, ``LOCAL`` for a check of ours, ``RESOLVED`` for what a person found out;
            empty where there is none.
        text: The reason in words; never a secret.
    """

    status: Status
    code: str = ""
    text: str = ""


# The code of an outcome that a person found out.
RESOLVED = "RESOLVED"

ACCEPTED = Outcome(Status.ACCEPTED)
PLANNED = Outcome(Status.PLANNED)


def fold(reports: Iterable[Outcome]) -> Outcome:
    """The one outcome that several reports amount to, whatever their order; *planned* if there is none."""
    return min(reports, key=_strength, default=PLANNED)


def _strength(report: Outcome) -> tuple[int, str, str]:
    # Code and text break ties, so that two readers of the same reports see the same reason.
    return _RANK[report.status], report.code, report.text
