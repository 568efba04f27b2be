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

Some rejections are weak: they say nothing of what another copy of the task may have sent under the same number. That we
were refused (401, 403, 404, a redirect), or have not sent at all, gives way to *unknown* and *seen*; that the number
was used before, but not by us, becomes *seen* once it shows that another copy of ours has sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import reduce

import msgspec


class Status(StrEnum):
    """How a communication number ended, strongest first."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SEEN = "seen"
    UNKNOWN = "unknown"
    PLANNED = "planned"


_RANK = {status: 3 * rank for rank, status in enumerate(Status)}

SETTLED = frozenset({Status.ACCEPTED, Status.SEEN})
UNRESOLVED = frozenset({Status.UNKNOWN, Status.PLANNED})


class Weak(StrEnum):
    """Why a rejection says nothing of what another copy of the task may have sent."""

    REFUSED = "refused"
    USED = "used"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One report about one number.

    Attributes:
        status: How it ended.
        code: The destination's error code, ``LOCAL`` for a check of ours, ``RESOLVED`` for what a person found out;
            empty where there is none.
        text: The reason in words; never a secret.
        weak: Of a rejection that gives way to what another copy of the task has seen: why.
    """

    status: Status
    code: str = ""
    text: str = ""
    weak: Weak | None = None


# Below what is unknown, above what is merely planned.
_WEAK_RANK = {Weak.USED: _RANK[Status.UNKNOWN] + 1, Weak.REFUSED: _RANK[Status.UNKNOWN] + 2}

# The code of an outcome that a person found out.
RESOLVED = "RESOLVED"
# What is on a receipt before a batch is sent that somebody else has planned. An answer's own reason says more.
SENT_AGAIN = "SENT AGAIN"

# What was planned and certainly not sent by whoever says so: it has used no number up.
NOT_SENT = Outcome(
    Status.REJECTED,
    "NOT SENT",
    "planned, and not sent: another run of the day had begun, or whether one had could not be found out",
    Weak.REFUSED,
)
ACCEPTED = Outcome(Status.ACCEPTED)
PLANNED = Outcome(Status.PLANNED)
_MAYBE_SENT = Outcome(Status.UNKNOWN, "NO ANSWER", "planned in another batch as well, which has no report")


def fold(reports: Iterable[Outcome]) -> Outcome:
    """The one outcome that several reports amount to, whatever their order; *planned* if there is none."""
    return reduce(_join, reports, PLANNED)


def fold_batches(first: Outcome, second: Outcome) -> Outcome:
    """The one outcome of a number that lies in two batches, each with what its own reports amount to."""
    # A batch that was planned and has no report may have been sent all the same, by a copy that died over it.
    if first.weak and second == PLANNED:
        return fold((first, _MAYBE_SENT))
    if second.weak and first == PLANNED:
        return fold((second, _MAYBE_SENT))
    return fold((first, second))


def _join(first: Outcome, second: Outcome) -> Outcome:
    weaker, stronger = sorted((first, second), key=_strength, reverse=True)
    if weaker.weak == Weak.USED and stronger.status == Status.UNKNOWN:
        return Outcome(Status.SEEN, weaker.code, "another copy of this run has sent it, and its answer was lost")
    return stronger


def _strength(report: Outcome) -> tuple[int, bool, str, str]:
    # Code and text break ties, so that two readers of the same reports see the same reason.
    rank = _WEAK_RANK[report.weak] if report.weak else _RANK[report.status]
    return rank, report.code == SENT_AGAIN, report.code, report.text
