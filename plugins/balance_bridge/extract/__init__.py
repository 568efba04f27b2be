"""Extraction: fetching from an exchange, within its limits, and keeping its responses as they came."""

from __future__ import annotations
