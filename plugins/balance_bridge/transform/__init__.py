"""From legs to balances: ledger, reconciliation, balances at points in time. Knows nothing of Airflow or HTTP."""

from __future__ import annotations
