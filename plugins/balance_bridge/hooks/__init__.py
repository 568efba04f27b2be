"""Airflow connections turned into clients. Thin: no rule of the business lives here."""

from __future__ import annotations
