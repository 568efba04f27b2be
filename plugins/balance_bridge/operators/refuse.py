"""The task that shows what is wrong in the accounts file."""

from __future__ import annotations

from typing import Any

from balance_bridge.errors import AccountsFileError
from balance_bridge.operators.base import BridgeOperator, without_traceback


class Refuse(BridgeOperator):
    """Fails with what is wrong in the accounts file.

    Args:
        error: All that is wrong.
    """

    ui_color = "#f8d8d8"

    def __init__(self, *, error: AccountsFileError, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    @without_traceback
    def execute(self, context: Any) -> None:  # noqa: ARG002
        """Fail with the whole message."""
        raise self.error
