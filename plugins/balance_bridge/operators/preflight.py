"""The task that checks, on a worker, everything that a run needs."""

from __future__ import annotations

from typing import Any

from balance_bridge.errors import ConfigurationError
from balance_bridge.operators.base import BridgeOperator, without_traceback


class Preflight(BridgeOperator):
    """Checks options, connections, accounts at the destinations, store, budget and clocks, as a worker sees them."""

    ui_color = "#e8f0f8"

    @without_traceback
    def execute(self, context: Any) -> dict[str, str]:  # noqa: ARG002
        """Check, and log each finding.

        Returns:
            What was found right, by what was checked.

        Raises:
            ConfigurationError: If anything is wrong: all of it, and what to do about each.
        """
        from balance_bridge.commands.check import findings

        right: dict[str, str] = {}
        wrong = []
        for finding in findings(deep=True, database=False):
            if finding.right:
                self.log.info("right: %s: %s", finding.what, finding.message)
                right[finding.what] = finding.message
            else:
                self.log.error("wrong: %s: %s", finding.what, finding.message)
                wrong.append(f"{finding.what}: {finding.message}")
        if wrong:
            count = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''} found"
            raise ConfigurationError(count, why="; ".join(wrong), do="Correct them, then trigger this DAG again")
        return right
