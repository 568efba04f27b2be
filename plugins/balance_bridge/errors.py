"""What can go wrong, grouped by what helps.

The base classes are recovery strategies: the code that catches one knows what to do without knowing the case.

::

    BalanceBridgeError
    ├── PermanentError          trying again cannot help: somebody has to change something
    │   ├── ConfigurationError  accounts file, option, connection, parameter
    │   │   ├── AccountsFileError
    │   │   ├── InvalidDay      a date that is malformed, in the future or not over
    │   │   └── PlaceChanged    a destination leads elsewhere than what was delivered so far
    │   ├── CredentialsRefused  the API refuses the key, the signature or the token
    │   ├── RequestRefused      the API refuses the request itself
    │   ├── InvalidResponse     a response that is not what the API documents
    │   │   └── Contradiction   responses that are each valid, but not together
    │   ├── InvalidAmount       text that is no exact amount, or one too large to hold
    │   ├── RetentionExceeded   the exchange no longer serves that day
    │   ├── SnapshotOverdue     the closing snapshot did not come in all the time it was waited for
    │   ├── ReconciliationBroken  opening + changes is not closing
    │   ├── RecordsRejected     a destination rejected records, with its reasons
    │   ├── Unconfirmed         a destination has seen records and does not say that it accepted them
    │   ├── SupersededRun       another run of the day has taken over
    │   ├── NumberReused        a communication number would go out with other content
    │   └── StoreDamaged        an object of the store is not what was written
    └── TransientError          passes without anybody's help: try again later
        ├── ConnectionFailed    nothing was sent: name, connection or TLS failed
        ├── ResponseLost        something was sent; whether it had an effect is not known
        ├── ServerFault         5xx, and the exchange's own codes for "my fault"
        ├── RateLimited         429 and the like: wait until the window is free
        ├── BudgetExhausted     our own budget has no slot for longer than this worker should be held
        ├── OutcomeUnknown      a destination did not say what became of records
        ├── StoreUnwritable     an object could not be written: disk full, no permission, bucket not reached
        └── NotYetAvailable     the closing snapshot of a day that has just ended, a file that has not come
"""

from __future__ import annotations

MAX_LOG_LINE = 110
_CUT = " ... "


class BalanceBridgeError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        what: What happened, and where.
        why: What is known about the cause; empty if ``what`` says it all.
        do: What somebody has to do; empty for the class's :attr:`remedy`.

    Attributes:
        remedy: What helps against most errors of a class; a log entry says so where an error has no ``do`` of its own.
    """

    remedy = ""

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.do = do

    def __str__(self) -> str:
        """What, why and do in one text."""
        parts = [part.rstrip(". ") for part in (*map(str, self.args[:1]), self.why, self.do) if part]
        return ". ".join(parts)

    def log_entry(self) -> str:
        """The error as a log entry for the person on call: what, why and do, a short line each."""
        what = str(self.args[0]) if self.args else type(self).__name__
        lines = {"what": what, "why": self.why, "do": self.do or self.remedy}
        return "\n".join(_one_line(f"{label}: {text}") for label, text in lines.items() if text)


def _one_line(text: str) -> str:
    """A text on one line, without control characters: a terminal would obey them.

    A long one is cut behind its first two thirds: it begins with where, and ends with why.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) <= MAX_LOG_LINE:
        return line
    third = (MAX_LOG_LINE - len(_CUT)) // 3
    return f"{line[: 2 * third].rstrip()}{_CUT}{line[-third:].lstrip()}"


class PermanentError(BalanceBridgeError):
    """Trying again cannot help; the task fails at once."""


class TransientError(BalanceBridgeError):
    """Passes without anybody's help; the task is tried again after a delay.

    Attributes:
        wait_s: Seconds after which it is worth trying again; None if nobody knows.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", wait_s: float | None = None) -> None:
        super().__init__(what, why=why, do=do)
        self.wait_s = wait_s


class ConfigurationError(PermanentError):
    """The accounts file, an option, a connection or a parameter is wrong."""


class AccountsFileError(ConfigurationError):
    """The accounts file, or one account in it, is wrong. Names the file, line, key, value and what is allowed."""

    remedy = "Correct the accounts file (`balance-bridge check` lists its mistakes), then clear this task."


class InvalidDay(ConfigurationError):
    """A day that is malformed, in the future or not over yet."""

    remedy = 'Trigger the DAG again with a UTC day that is over, such as {"date": "2026-11-20"}.'


class CredentialsRefused(PermanentError):
    """The API does not accept the key, the signature or the token, or they lack a permission."""

    remedy = "Check key, secret and permissions in the connection, then clear this task."


class RequestRefused(PermanentError):
    """The API understood who is asking and refuses the request itself (4xx)."""

    remedy = "Correct the setting that the response names, then clear this task."


class InvalidResponse(PermanentError):
    """A response that is not what the API documents. The message names the path, the sequence number and the value."""

    remedy = "Check the host and any proxy, then clear this task. If that does not help, trigger the day with refetch."


class Contradiction(InvalidResponse):
    """Responses that are each valid but not together; like a break, fetched again before it is believed."""

    remedy = "Trigger the day with refetch; if that does not help, ask the exchange."


class InvalidAmount(PermanentError):
    """Text that is no exact decimal amount, or an amount that ``decimal128(38, 18)`` cannot hold."""

    remedy = "Look at the raw response in the store, and ask the exchange."


class RetentionExceeded(PermanentError):
    """The exchange no longer serves that day and the store does not have it."""

    remedy = "Restore the day's raw objects from a backup; it can no longer be fetched."


class SnapshotOverdue(PermanentError):
    """The closing snapshot of a day did not come in all the time it was waited for."""

    remedy = "Find out why the exchange or the sender of the files is late; clear this task once the snapshot is there."


class ReconciliationBroken(PermanentError):
    """Opening plus every change is not closing. The message names asset, amount, last good and first bad sn."""

    remedy = 'Ask the exchange, then trigger the DAG with {"date": the day, "refetch": true}, or set on_break: ask.'


class RecordsRejected(PermanentError):
    """A destination, or a check before it, rejected records. The message counts and names them with their reasons."""

    remedy = "Correct the mapping or the ids in the accounts file, then clear this task."


class Unconfirmed(PermanentError):
    """A destination has seen records without confirming them, where the accounts file makes that a failure."""

    remedy = "Ask the vendor, then record what you found out with `balance-bridge receipts resolve`."


class SupersededRun(PermanentError):
    """Another run of the same day has taken over the delivery; this one stops.

    Attributes:
        late: How many balances may have arrived in the wrong order because of it.
    """

    remedy = "Nothing, as long as the other run succeeds."

    def __init__(self, what: str, *, why: str = "", do: str = "", late: int = 0) -> None:
        super().__init__(what, why=why, do=do)
        self.late = late


class PlaceChanged(ConfigurationError):
    """A destination's name leads to another place, or makes other keys, than what was delivered so far."""


class NumberReused(PermanentError):
    """A communication number would have two contents."""

    remedy = "Report it as a bug, with the receipts of the day; nothing more was sent."


class StoreDamaged(PermanentError):
    """An object in the store is missing, unreadable or of a format version that this release does not know."""

    remedy = "Run `balance-bridge store check`: it says what to do. Restore damaged receipts before you run the day."


class ConnectionFailed(TransientError):
    """The request never left: the name did not resolve, the connection was refused or TLS failed."""

    remedy = "Airflow tries again. If it keeps failing, check the host, the network and the proxy."


class ResponseLost(TransientError):
    """The request left and no whole response came back. A read may be repeated; a write has an unknown outcome."""

    remedy = "Airflow tries again. If it keeps failing, check the network and the proxy."


class ServerFault(TransientError):
    """The server says that the fault is its own (5xx, or the exchange's codes for it)."""

    remedy = "Airflow tries again. If it keeps failing, ask the vendor."


class RateLimited(TransientError):
    """The server says that there were too many requests, and perhaps how long to wait."""

    remedy = "Airflow tries again. If it keeps failing, find out what else uses this key."


class BudgetExhausted(TransientError):
    """No request can be made for longer than the caller is willing to wait; nothing was sent.

    Attributes:
        refusal: The server's own refusal, if that is why; None if our counting alone says so.
    """

    remedy = "Airflow tries again once the budget has a free slot."
    wait_s: float

    def __init__(
        self, what: str, *, wait_s: float, why: str = "", do: str = "", refusal: RateLimited | None = None
    ) -> None:
        super().__init__(what, why=why, do=do, wait_s=wait_s)
        self.refusal = refusal


class OutcomeUnknown(TransientError):
    """A destination did not say what became of some records; they are sent again under the same numbers."""

    remedy = "Airflow sends them again under the same numbers. If they stay unknown, see `balance-bridge receipts`."


class StoreUnwritable(TransientError):
    """An object could not be written to the store. There is no part of it: the same step can be done again."""

    remedy = "Make room or grant access ([balance_bridge] store); Airflow tries again."


class NotYetAvailable(TransientError):
    """The other side does not have it yet; with ``wait_s``, it was not even asked for."""

    remedy = "Nothing: the task waits for it."
