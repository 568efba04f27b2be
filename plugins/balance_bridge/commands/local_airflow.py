"""A whole Airflow on this machine, in a folder of its own: scheduler, DAG processor, API server, triggerer.

``airflow standalone`` would do nearly the same, but leaves its parts behind when it is ended by SIGTERM. Here each part
is a process group of its own, and whatever happens, all of them are ended.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from balance_bridge import private
from balance_bridge.errors import BalanceBridgeError

START_LIMIT_S = 180.0
STOP_LIMIT_S = 20.0
# Its API answers within milliseconds, unless the machine is busy with something else.
ANSWER_LIMIT_S = 60.0

# Airflow's log servers listen on every interface and cannot be confined. The API reads the logs from this disk.
_NO_LOG_SERVER = "--skip-serve-logs"
# -P: a file in the current folder must not stand in for a module.
_PYTHON = (sys.executable, "-P")


class LocalAirflowError(BalanceBridgeError):
    """Airflow could not be started; the message says which part and where its log is."""


def dags_folder() -> Path:
    """Where the package's DAG files lie: beside the package in a wheel, in the project's ``dags/`` otherwise."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "dags"
    return inside if inside.is_dir() else package.parents[1] / "dags"


def free_port(wanted: int = 0) -> int:
    """A TCP port of the loopback interface that nobody listens on; the wanted one if it is free."""
    with suppress(OSError), socket.create_server(("127.0.0.1", wanted)) as probe:
        return int(probe.getsockname()[1])
    return free_port()


class LocalAirflow:
    """Airflow's parts as child processes. A context manager: leaving it ends them all.

    Args:
        home: AIRFLOW_HOME; made if it is missing.
        options: Further environment: connections, options of the package.
        port: Of the UI and the REST API, if nobody listens on it; else a free one.

    Attributes:
        url: Base URL of the UI and of the REST API.
        logs: Folder of the parts' own logs; task logs are in ``<home>/logs``.
    """

    def __init__(self, home: Path, options: Mapping[str, str], port: int = 0) -> None:
        self.home = home
        self.logs = home / "logs" / "parts"
        port = free_port(port)
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            # Settings of another Airflow in the caller's environment must not leak in.
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            # A part that finds SQLite locked by another one waits; after the 5 s of the default it would fail.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.resolve()}/airflow.db?timeout=60",
            # Else the first command would make up a key that the parts, already running, do not have.
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            # Messages are sentences: the log view shows them whole.
            "AIRFLOW__API__DEFAULT_WRAP": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # So that a change of the accounts file soon shows.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PYTHONWARNINGS": "ignore",
            **options,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> LocalAirflow:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def prepare(self) -> None:
        """Make the database and the pools.

        Raises:
            LocalAirflowError: If that fails.
        """
        private.make_folder(self.logs)
        # One process for both: most of the time is Airflow's import.
        code = (
            "from airflow.utils.db import initdb; initdb(); "
            "from balance_bridge.commands.pools import make_pools; make_pools()"
        )
        self._run("the database could not be made", "-c", code)

    def command(self, *arguments: str) -> None:
        """Run one of Airflow's own commands; ``arguments`` are those after the word ``airflow``.

        Raises:
            LocalAirflowError: If it fails.
        """
        self._run(f"airflow {' '.join(arguments)} failed", "-m", "airflow", *arguments)

    def _run(self, failed: str, *arguments: str) -> None:
        done = subprocess.run(
            [*_PYTHON, *arguments],
            env=self.environment,
            umask=private.UMASK,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise LocalAirflowError(failed, why=_tail(done.stdout))

    def start(self) -> None:
        """Start the parts and wait until the scheduler is at work.

        Raises:
            LocalAirflowError: If a part ends, or is not ready in time.
        """
        end = time.monotonic() + START_LIMIT_S
        for part in ("api-server", "dag-processor"):
            self._launch(part)
        self._wait_until(lambda: bool(self._health()), end)
        # Tasks report to the API: a scheduler that is up before it would see its first tasks fail.
        for part in ("scheduler", "triggerer"):
            self._launch(part, _NO_LOG_SERVER)
        self._wait_until(self._healthy, end)

    def _launch(self, part: str, *arguments: str) -> None:
        with open(self.logs / f"{part}.log", "wb", opener=private.opener) as output:
            self._processes[part] = subprocess.Popen(
                [*_PYTHON, "-m", "airflow", part, *arguments],
                env=self.environment,
                umask=private.UMASK,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C reaches us alone, and we end the parts in order.
                start_new_session=True,
            )

    def _wait_until(self, ready: Callable[[], bool], end: float) -> None:
        while not ready():
            self.check_alive()
            if time.monotonic() > end:
                raise LocalAirflowError(f"Airflow was not ready within {START_LIMIT_S:g} s", do=f"Read {self.logs}")
            time.sleep(0.3)

    def check_alive(self) -> None:
        """See that every part is still running.

        Raises:
            LocalAirflowError: If one has ended.
        """
        for part, process in self._processes.items():
            if process.poll() is not None:
                log = self.logs / f"{part}.log"
                why = _tail(log.read_text(errors="replace"))
                raise LocalAirflowError(
                    f"Airflow's {part} ended with code {process.returncode}", why=why, do=f"Read all of it in {log}"
                )

    def get(self, path: str, **params: str | int) -> Any:
        """Ask Airflow's REST API.

        Args:
            path: Below ``/api/v2/``.
            params: The query.
        """
        if "Authorization" not in self._session.headers:
            # In all-admins mode it is given to whoever asks.
            token = self._session.get(f"{self.url}/auth/token", timeout=ANSWER_LIMIT_S).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        answer = self._session.get(f"{self.url}/api/v2/{path}", params=params, timeout=ANSWER_LIMIT_S)
        answer.raise_for_status()
        return answer.json()

    def stop(self) -> None:
        """End every part and whatever it has started. Can be called again."""
        # The scheduler first: it lets its workers end before the API that they talk to is gone.
        for parts in (("scheduler", "triggerer", "dag-processor"), ("api-server",)):
            waiting = [self._processes[part] for part in parts if part in self._processes]
            for process in waiting:
                _signal(process, signal.SIGTERM)
            end = time.monotonic() + STOP_LIMIT_S
            for process in waiting:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, end - time.monotonic()))
                _signal(process, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        self._session.close()

    def _healthy(self) -> bool:
        parts, state = ("metadatabase", "scheduler", "dag_processor", "triggerer"), self._health()
        return all((state.get(part) or {}).get("status") == "healthy" for part in parts)

    def _health(self) -> dict[str, Any]:
        """What Airflow says of its parts; nothing while its API is not up."""
        with suppress(requests.RequestException, ValueError):
            return dict(self._session.get(f"{self.url}/api/v2/monitor/health", timeout=2).json())
        return {}


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group outlives its leader where a child was left behind; a group that is gone is what we want.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.splitlines()[-lines:])
