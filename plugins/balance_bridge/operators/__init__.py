"""Airflow tasks around the day's stages. Thin: contexts, parameters and XCom; no rule of the business lives here."""

from __future__ import annotations
