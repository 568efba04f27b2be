"""Delivery: what is sent to which destination, under which number, and what became of it."""

from __future__ import annotations
