"""Extraction: asking an exchange, within its limits, and keeping its answers as they came."""

from __future__ import annotations
