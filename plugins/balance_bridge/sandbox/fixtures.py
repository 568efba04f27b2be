"""Who is known in the sandbox: obvious fakes, and the configuration that fits them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from balance_bridge.sandbox.webhook import PATH

# What the Elven entity knows: codes without a hyphen only, and no spam.
SYMBOLS = ("BTC", "ETH", "USDT", "XRP", "1INCH", "NO", "SOL", "BTMX", "BTT", "ANKR", "AKRO", "ADA", "FLASH")


class Credentials(NamedTuple):
    """Everything that opens a door in the sandbox, by API key or account name. None of it is worth anything outside."""

    exchange: Mapping[str, str] = {
        "sandbox-cash-key": "sandbox-cash-secret-not-real",
        "sandbox-margin-key": "sandbox-margin-secret-not-real",
    }
    elven: Mapping[str, str] = {"sandbox-elven-key": "sandbox-elven-secret-not-real"}
    amlyze: str = "sandbox-amlyze-token-not-real"
    webhook: str = "sandbox-webhook-secret-not-real"
    entity_accounts: Mapping[str, str] = {
        "main_cash": "sandboxEntityAccountCash00000001",
        "main_margin": "sandboxEntityAccountMargin000002",
    }
    sources: Mapping[str, str] = {
        "main_cash": "sandboxBalanceSourceCash00000001",
        "main_margin": "sandboxBalanceSourceMargin000002",
    }
    account_ext_ids: Mapping[str, str] = {
        "main_cash": "ASCENDEX-CASH-{asset}",
        "main_margin": "ASCENDEX-MARGIN-{asset}",
    }


CREDENTIALS = Credentials()
# The exchange's API key by account name.
API_KEYS = {"main_cash": "sandbox-cash-key", "main_margin": "sandbox-margin-key"}


def connections(url: str) -> dict[str, dict[str, str]]:
    """The Airflow connections that lead into the sandbox, by connection id.

    Args:
        url: The sandbox's base URL; everything lives under it.
    """

    def connection(kind: str, host: str, login: str, password: str) -> dict[str, str]:
        return {"conn_type": kind, "host": host, "login": login, "password": password}

    cash, margin = CREDENTIALS.exchange.items()
    (elven,) = CREDENTIALS.elven.items()
    return {
        "ascendex_cash": connection("ascendex", url, *cash),
        "ascendex_margin": connection("ascendex", url, *margin),
        "elven_default": connection("elven", url, *elven),
        "amlyze_default": connection("amlyze", url, "", CREDENTIALS.amlyze),
        "webhook_default": connection("webhook", url + PATH, "", CREDENTIALS.webhook),
    }


def accounts_yaml(start_date: date) -> str:
    """An accounts file for the sandbox's two accounts.

    Args:
        start_date: First day to deliver (UTC).
    """
    entity, source, ids = CREDENTIALS.entity_accounts, CREDENTIALS.sources, CREDENTIALS.account_ext_ids
    return f"""\
accounts:
  main_cash:
    source: {{type: ascendex, conn_id: ascendex_cash, category: cash, settle: 0}}
    start_date: {start_date.isoformat()}
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: {entity["main_cash"]}
        source_id: {source["main_cash"]}
        timezone: Asia/Shanghai
        points: [close]
        # Elven knows no code with a hyphen, and has never heard of the spam.
        assets:
          BTMX-S: {{symbol: BTMX}}
          BTT-B: {{symbol: BTT}}
          BTC: {{asset_id: BTC}}
          SPAM: ignore
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "{ids["main_cash"]}"
        balance_type: STATEMENT_BALANCE
        business_unit: sandbox
        points: [close, {{every: 6h}}]
        assets: {{SPAM: ignore}}

  main_margin:
    source: {{type: ascendex, conn_id: ascendex_margin, category: margin, settle: 0}}
    start_date: {start_date.isoformat()}
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: {entity["main_margin"]}
        source_id: {source["main_margin"]}
        timezone: Asia/Shanghai
        points: [close]
        assets:
          BTMX-S: {{symbol: BTMX}}
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "{ids["main_margin"]}"
        business_unit: sandbox
        points: [close, local_midnight]
        timezone: Europe/Vilnius
      # A receiver of one's own: every balance as JSON, signed.
      webhook:
        conn_id: webhook_default
        points: [open, close]
"""
