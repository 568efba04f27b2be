"""What can go wrong, grouped by what helps.

The base classes are recovery strategies: whoever catches one knows what to do without knowing the case.

::

    BalanceBridgeError
    ├── PermanentError          trying again cannot help: somebody has to change something
    │   ├── ConfigurationError  accounts file, option, connection, parameter
    │   │   ├── AccountsFileError
    │   │   ├── InvalidDay      a date that is malformed, in the future or not over
    │   │   └── PlaceChanged    a destination leads elsewhere than what was delivered so far
    │   ├── CredentialsRefused  the API answered: not with this key
    │   ├── RequestRefused      the API answered: not this request
    │   ├── InvalidResponse     an answer that is not what the API documents
    │   │   └── Contradiction   answers that are each in order, but not together
    │   ├── InvalidAmount       text that is no exact amount, or one too large to hold
    │   ├── RetentionExceeded   the exchange no longer serves that day
    │   ├── SnapshotOverdue     the closing snapshot did not come in all the time it was waited for
    │   ├── ReconciliationBroken opening + changes is not closing
    │   ├── RecordsRejected     a destination refused records, with its reasons
    │   ├── Unconfirmed         a destination has seen records and does not say that it took them
    │   ├── SupersededRun       another run of the day has taken over
    │   ├── NumberReused        a communication number would go out with other content
    │   └── StoreDamaged        an object of the store is not what was written
    └── TransientError          passes by itself: try again later
        ├── ConnectionFailed    nothing was sent: name, connection or TLS failed
        ├── ResponseLost        something was sent; whether it was acted upon is not known
        ├── ServerFault         5xx and the exchange's own codes for "my fault"
        ├── RateLimited         429 and its like: wait until the window is free
        ├── BudgetExhausted     our own budget has no place for a while, longer than this worker should be held
        ├── OutcomeUnknown      a destination did not say what became of records
        ├── StoreUnwritable     an object could not be written: disk full, no permission, bucket not reached
        └── NotYetAvailable     the closing snapshot of a day that has just ended, a file that has not come
"""

from __future__ import annotations

import textwrap

MAX_LOG_LINE = 110


class BalanceBridgeError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        what: What happened, and where.
        why: What is known about the cause; empty if ``what`` says it all.
        do: What somebody has to do; empty for the class's :attr:`remedy`.

    Attributes:
        remedy: What helps against most errors of a class; empty if that depends.
    """

    remedy = ""

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.do = do or self.remedy

    def __str__(self) -> str:
        """All of it in one text."""
        parts = [part.rstrip(". ") for part in (str(self.args[0]) if self.args else "", self.why, self.do) if part]
        return ". ".join(parts)

    def log_entry(self) -> str:
        """The error as a log entry for whoever is on call: what, why and do, a short line each."""
        what = str(self.args[0]) if self.args else type(self).__name__
        lines = {"what": what, "why": self.why, "do": self.do}
        return "\n".join(
            textwrap.shorten(f"{label}: {text}", MAX_LOG_LINE, placeholder=" ...")
            for label, text in lines.items()
            if text
        )


class PermanentError(BalanceBridgeError):
    """Trying again cannot help; the task fails at once."""


class TransientError(BalanceBridgeError):
    """Passes by itself; the task is tried again after a delay."""


class ConfigurationError(PermanentError):
    """The accounts file, an option, a connection or a parameter is wrong."""


class AccountsFileError(ConfigurationError):
    """The accounts file, or one account in it, is wrong; told with file, line, key, value and what is allowed."""


class InvalidDay(ConfigurationError):
    """A day that is malformed, in the future or not over yet."""


class CredentialsRefused(PermanentError):
    """The API does not accept the key, the signature or the token, or they lack a permission."""


class RequestRefused(PermanentError):
    """The API understood who is asking and refuses the request itself (4xx)."""


class InvalidResponse(PermanentError):
    """An answer that is not what the API documents. The message names the path, the sequence number and the value."""


class Contradiction(InvalidResponse):
    """Answers that are each in order but contradict one another; like a break, it is asked about once more."""


class InvalidAmount(PermanentError):
    """Text that is no exact decimal amount, or an amount that ``decimal128(38, 18)`` cannot hold."""


class RetentionExceeded(PermanentError):
    """The exchange no longer serves that day and the store does not have it."""


class SnapshotOverdue(PermanentError):
    """The closing snapshot of a day did not come in all the time it was waited for."""


class ReconciliationBroken(PermanentError):
    """Opening plus every change is not closing. The message names asset, amount, last good and first bad sn."""


class RecordsRejected(PermanentError):
    """A destination, or a check before it, rejected records. The message counts and names them with their reasons."""


class Unconfirmed(PermanentError):
    """A destination has seen records without confirming them, where the accounts file makes that a failure."""


class SupersededRun(PermanentError):
    """Another run of the same day has taken over the delivery; this one stops.

    Attributes:
        late: How many balances may have arrived in the wrong order because of it.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", late: int = 0) -> None:
        super().__init__(what, why=why, do=do)
        self.late = late


class PlaceChanged(ConfigurationError):
    """A destination's name leads to another place, or makes other keys, than what was delivered so far."""


class NumberReused(PermanentError):
    """A communication number would have two contents."""


class StoreDamaged(PermanentError):
    """An object in the store is missing, unreadable or of a format version that this release does not know."""


class ConnectionFailed(TransientError):
    """The request never left: the name did not resolve, the connection was refused or TLS failed."""


class ResponseLost(TransientError):
    """The request left and no whole answer came back. A read may be repeated; a write has an unknown outcome."""


class ServerFault(TransientError):
    """The server says that the fault is its own (5xx, or the exchange's codes for it)."""


class RateLimited(TransientError):
    """The server says that there were too many requests.

    Attributes:
        retry_after_s: Seconds to wait as the server asked for, or None if it did not say.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(what, why=why, do=do)
        self.retry_after_s = retry_after_s


class BudgetExhausted(TransientError):
    """No request can be made for longer than the caller is willing to wait; nothing was sent.

    Attributes:
        wait_s: Seconds after which it is worth asking again.
        refusal: The server's own refusal, if that is why; None if our counting alone says so.
    """

    def __init__(
        self, what: str, *, wait_s: float, why: str = "", do: str = "", refusal: RateLimited | None = None
    ) -> None:
        super().__init__(what, why=why, do=do)
        self.wait_s = wait_s
        self.refusal = refusal


class OutcomeUnknown(TransientError):
    """A destination did not say what became of some records; they are sent again under the same numbers."""


class StoreUnwritable(TransientError):
    """An object could not be written to the store. There is no part of it: the same step can be done again."""


class NotYetAvailable(TransientError):
    """The other side does not have it yet.

    Attributes:
        wait_s: Seconds before which it is not even asked for; None if it was asked for.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", wait_s: float | None = None) -> None:
        super().__init__(what, why=why, do=do)
        self.wait_s = wait_s
