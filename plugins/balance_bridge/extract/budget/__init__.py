"""The request budget: at most so many requests in any window, over all tasks and processes that share a key."""

from balance_bridge.extract.budget.base import (
    LEASE_S,
    MARGIN_S,
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    Budget,
    Options,
    Usage,
    budget_key,
)
from balance_bridge.extract.budget.opening import open_budget, redacted
from balance_bridge.extract.budget.sqlite import SqliteBudget

__all__ = [
    "LEASE_S",
    "MARGIN_S",
    "REQUESTS_PER_WINDOW",
    "WINDOW_S",
    "Budget",
    "Options",
    "SqliteBudget",
    "Usage",
    "budget_key",
    "open_budget",
    "redacted",
]
