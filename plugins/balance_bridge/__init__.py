"""balance-bridge: daily exchange balances, proven and delivered, by Apache Airflow."""

from __future__ import annotations

__version__ = "0.1.0"
