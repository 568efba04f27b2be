"""What the command line does. Each module is one command, or what several of them share."""

from __future__ import annotations
