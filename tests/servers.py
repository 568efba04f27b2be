"""Servers that tests start for themselves: on free ports of this machine, in folders of their own, ended with them."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def missing(what: str) -> None:
    """Skip where a server is not installed; where everything must be tested, fail."""
    told = f"{what} is not installed: .ci/packages installs it"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL of one's own; gives the URL of a database in it, with a password."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [os.path.dirname(shutil.which("initdb") or "")]
    if not Path(found[-1], "initdb").exists():
        missing("PostgreSQL")
    binaries, port = Path(found[-1]), free_port()
    folder = Path(tempfile.mkdtemp(prefix="balance-bridge-postgresql-"))
    # It refuses to run as root.
    user = "postgres" if os.getuid() == 0 and _is_user("postgres") else None
    if user is None and os.getuid() == 0:
        user = "nobody"
    try:
        if user is not None:
            shutil.chown(folder, user)
        password = folder / "password"
        password.write_text("a-password-not-real")
        password.chmod(0o644)
        # A template without the checks of a disk's safety: it lives for a minute.
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", "tester", "--pwfile", password, "-A", "password",
             "--no-sync", "--no-instructions"],
            check=True, capture_output=True, user=user, cwd="/", timeout=60,
        )  # fmt: skip
        command = [
            str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1",
            "-k", "", "-c", "fsync=off", "-c", "max_connections=50",
        ]  # fmt: skip
        url = f"postgresql://tester:a-password-not-real@127.0.0.1:{port}/postgres"
        with _running(command, lambda: _answers(url), user=user):
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], ready: Callable[[], bool], user: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", user=user, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 30
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start")
            time.sleep(0.05)
        yield
    finally:
        # PostgreSQL ends at once, without a last checkpoint and without waiting for who is connected.
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(url: str) -> bool:
    import psycopg

    with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2):
        return True
    return False


def _is_user(name: str) -> bool:
    with suppress(KeyError):
        pwd.getpwnam(name)
        return True
    return False
