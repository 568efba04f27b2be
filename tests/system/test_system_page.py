"""The page in a real Airflow and a real browser: who sees what, and a break from question to delivery."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from balance_bridge import decisions
from balance_bridge.decisions import Act
from balance_bridge.store import Store

# One after another: all share one Airflow.
pytestmark = [pytest.mark.system, pytest.mark.slow]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Airflow's state of a task that waits for a person.
WAITS = "awaiting_input"
USERS = {"vera": "viewer", "tom": "user", "ada": "admin"}
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: .ci/packages installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(running: Any) -> Iterator[str]:
    """The URL of a second API server on the same database, which asks who somebody is."""
    home = running.world.home / "second"
    home.mkdir(exist_ok=True)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({name: f"{name}-password" for name in USERS}))
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **running.airflow.environment,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
    }
    with open(home / "api-server.log", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "airflow", "api-server"],
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        running.until("the second API server", lambda: _is_up(url, process))
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _is_up(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return requests.get(f"{url}/api/v2/monitor/health", timeout=2).ok
    except requests.RequestException:
        return False


def token(url: str, user: str) -> str:
    asked = {"username": user, "password": f"{user}-password"}
    return str(requests.post(f"{url}/auth/token", json=asked, timeout=10).json()["access_token"])


@contextmanager
def looking(browser: Any, url: str, user: str, *, size: str = "desk", dark: bool = False) -> Iterator[Any]:
    """A page of the browser, signed in; nothing may go wrong on it, and nothing may come from elsewhere."""
    context = browser.new_context(viewport=SIZES[size], color_scheme="dark" if dark else "light")
    host = url.removeprefix("http://")
    context.add_cookies([{"name": "_token", "value": token(url, user), "url": url}])
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # The browser notes each response that is an error, which a test may want to see.
    page.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and "404" not in said.text else None
    )
    page.on("request", lambda sent: wrong.append(sent.url) if f"//{host}/" not in sent.url else None)
    yield page
    context.close()
    assert [each for each in wrong if not each.startswith(("data:", "blob:"))] == []


def picture(page: Any, name: str) -> None:
    """Keep a picture of the page in the folder that PICTURES names, if it names one."""
    folder = os.environ.get("PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_nobody_sees_anything_without_signing_in(running: Any, site: str) -> None:
    for path in ("/", f"/day/main_cash/{running.days[0]}", f"/day/main_cash/{running.days[0]}/ledger.csv"):
        response = requests.get(f"{site}/balances{path}", timeout=10)
        assert response.status_code == 401
        assert "main_cash" not in response.text
    response = requests.post(f"{site}/balances/day/main_cash/{running.days[0]}/run", data={"act": "rerun"}, timeout=10)
    assert response.status_code in (401, 403)


def test_a_viewer_looks_and_has_no_buttons(running: Any, site: str, browser: Any) -> None:
    with looking(browser, site, "vera") as page:
        page.goto(f"{site}/balances/")
        assert "main_cash" in page.inner_text("table.days")
        picture(page, "overview")
        page.click(f'a[aria-label^="main_cash {running.days[0]}"]')
        page.wait_for_url(f"**/day/main_cash/{running.days[0]}")
        assert "What moved" in page.inner_text("main")
        assert page.locator("button").count() == 0
        picture(page, "day")
        page.click('th a:has-text("BTC")')
        page.wait_for_selector("#chart canvas")
        assert page.locator("#chart canvas").bounding_box()["width"] > 500
        picture(page, "asset")


def test_inside_airflow_the_page_is_in_the_menu_and_follows_the_theme(running: Any, site: str, browser: Any) -> None:
    with looking(browser, site, "tom", dark=True) as page:
        page.goto(f"{site}/plugin/balances")
        frame = page.frame_locator("iframe")
        frame.locator("table.days").wait_for()
        frame.locator("html.dark").wait_for(state="attached")
        picture(page, "in-airflow-dark")


def test_on_a_phone_only_the_table_scrolls_sideways(site: str, browser: Any) -> None:
    with looking(browser, site, "vera", size="phone") as page:
        page.goto(f"{site}/balances/?days=90")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]
        picture(page, "phone")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_on_a_page_keeps_anybody_from_using_it(running: Any, site: str, browser: Any, dark: bool) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with looking(browser, site, "tom", dark=dark) as page:
        for path in ("/", f"/day/main_margin/{running.days[-1]}", "/asset/main_cash/BTC", "/nowhere"):
            page.goto(f"{site}/balances{path}")
            found = Axe().run(page).response["violations"]
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious] == [], path


def test_with_the_keyboard_alone_the_newest_day_is_reached(running: Any, site: str, browser: Any) -> None:
    with looking(browser, site, "vera") as page:
        page.goto(f"{site}/balances/")
        for _ in range(30):
            page.keyboard.press("Tab")
            label = page.evaluate("document.activeElement.getAttribute('aria-label') || ''")
            if re.match(r"main_\w+ \d{4}-", label):
                break
        else:
            pytest.fail("no cell was reached in 30 steps")
        page.keyboard.press("Enter")
        page.wait_for_url("**/day/**")


# Two minutes: a day breaks, is asked about, approved and delivered, while the days after it run.
def test_a_break_goes_from_question_to_delivery_while_the_next_days_run(running: Any, site: str, browser: Any) -> None:
    account, dag = "asked_margin", "balances_asked_margin"
    asking = f"{dag}_approval"
    first, second, _ = running.days
    for day in (first, second):
        running.sandbox.withhold(f"{account}-key", "margin", day)
    running.open_account(account, "margin", running.days, more="requester: treasury", on_break="ask")

    def states() -> list[str]:
        runs = {run["logical_date"][:10]: run["state"] for run in running.runs(dag) if run["run_type"] == "scheduled"}
        return [runs.get(str(day), "") for day in running.days]

    running.until("the day after the breaks", lambda: states() == ["failed", "failed", "success"])

    def questions() -> dict[str, str]:
        return {run["dag_run_id"][:10]: run["dag_run_id"] for run in running.runs(asking) if run["state"] == "running"}

    running.until("both questions", lambda: set(questions()) == {str(first), str(second)})
    with looking(browser, site, "tom") as page:
        page.goto(f"{site}/balances/day/{account}/{first}")
        picture(page, "held")
        # Inside Airflow, where the menu leads: its frame allows less than a page of its own.
        page.goto(f"{site}/plugin/balances")
        frame = page.frame_locator("iframe")
        assert "attention" in frame.locator("h1").inner_text()
        frame.locator(f'a[aria-label^="{account} {first}: held"]').click()
        frame.locator('input[name="reason"]').fill("the exchange's ticket 4711")
        frame.locator('button[value="approved"]').click()
        frame.locator('dialog button:has-text("Yes")').click()
        frame.locator("text=What people did").wait_for()
    # The other one is answered where Airflow asks.
    running.until("the question waits", lambda: running.tasks(asking, questions()[str(second)])["approve"] == WAITS)
    answered = requests.patch(
        f"{site}/api/v2/dags/{asking}/dagRuns/{questions()[str(second)]}/taskInstances/approve/-1/hitlDetails",
        json={"chosen_options": ["Approve"], "params_input": {"reason": "seen with the bank"}},
        headers={"Authorization": f"Bearer {token(site, 'ada')}"},
        timeout=10,
    )
    assert answered.ok, answered.text
    store = Store(running.airflow.home / "balances")

    def approvals() -> list[tuple[str, str]]:
        found = [each for day in (first, second) for each in decisions.read(store, account, day)]
        return [(each.by, each.reason) for each in found if each.act is Act.APPROVED]

    both = [("tom", "the exchange's ticket 4711"), ("ada", "seen with the bank")]
    running.until("both answers on record", lambda: approvals() == both)

    def delivered() -> set[str]:
        runs = [run for run in running.runs(dag) if run["run_type"] != "scheduled" and run["state"] == "success"]
        return {day for day in map(str, (first, second)) if any(day in run["dag_run_id"] for run in runs)}

    running.until("the approved days", lambda: delivered() == {str(first), str(second)})
    taken = [row for row in running.sandbox.amlyze.delivered if row.account_ext_id.startswith(account)]
    assert {str(row.balance_at)[:10] for row in taken} == {str(day + timedelta(days=1)) for day in running.days}
    assert {row.state for row in taken} == {"new"}, "nothing twice"
    with looking(browser, site, "vera") as page:
        page.goto(f"{site}/balances/day/{account}/{first}")
        assert "tom approved it" in page.inner_text("main")
        picture(page, "approved")
