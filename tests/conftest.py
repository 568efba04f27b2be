"""An Airflow of its own for each process that runs tests.

Airflow reads its configuration when it is imported, so the environment is set here, before anything else. Nothing in
here imports Airflow: most tests need none, and it takes a second.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

# xdist's own groups are not seen by this pytest.
SHARE_AN_AIRFLOW = tuple(
    f"tests/system/test_system_{name}.py" for name in ("dags_test", "demo", "page", "scheduler", "task_kills")
)
PROJECT = Path(__file__).resolve().parents[1]
# One process, one folder: with pytest-xdist each worker gets its own database.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="balance-bridge-tests-"))

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(PROJECT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(AIRFLOW_HOME / "plugins"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__TEST_CONNECTION="Enabled",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    # A name that leads nowhere must be seen as such, whatever proxy the machine has.
    NO_PROXY="*",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the tests over the workers one by one, but for those that share one running Airflow."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "airflow" if nodeid.startswith(SHARE_AN_AIRFLOW) else nodeid

    return Scheduling(config, log)


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    return AIRFLOW_HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Path:
    """Airflow's database, made once per process: 3 s."""
    from airflow.utils.db import initdb

    initdb()
    return airflow_home / "airflow.db"


@pytest.fixture
def closed_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
