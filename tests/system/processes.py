"""What processes have started, where they listen, and what they leave behind; by /proc."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from threading import Event, Thread

Address = IPv4Address | IPv6Address
LISTENING = "0A"


def parent(pid: int) -> int:
    """The process that started another one."""
    # The name stands in brackets and may hold anything.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another one, directly or not; False if it is gone."""
    try:
        while pid not in (0, ancestor):
            pid = parent(pid)
    except OSError:
        return False
    return pid == ancestor


def family(pid: int) -> set[int]:
    """A process and all that it has started, directly or not."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return {each for each in pids if descends(each, pid)}


def listens(pids: set[int]) -> dict[str, Address]:
    """Where these processes listen, by socket."""
    inodes: dict[str, int] = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes[target.removeprefix("socket:[").removesuffix("]")] = pid
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            place, port = fields[1].split(":")
            if fields[3] == LISTENING and fields[9] in inodes:
                found[f"process {inodes[fields[9]]}, port {int(port, 16)}"] = _address(place)
    return found


def _address(text: str) -> Address:
    """An address as /proc/net writes it: words of 32 bits in the machine's own byte order."""
    words = [text[start : start + 8] for start in range(0, len(text), 8)]
    return ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))


@contextmanager
def watched_sockets() -> Iterator[dict[str, Address]]:
    """Where this process and all that it starts listen meanwhile, also for a moment only."""
    seen: dict[str, Address] = {}
    over = Event()

    def look() -> None:
        while not over.wait(0.5):
            seen.update(listens(family(os.getpid())))

    thread = Thread(target=look, name="sockets")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def left_behind(home: Path) -> list[str]:
    """The processes that have this AIRFLOW_HOME in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"AIRFLOW_HOME={home}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def open_to_others(folder: Path) -> dict[str, str]:
    """What in a folder others than its owner can read or write."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        # Links have no permissions of their own; sockets and files that come and go do not count.
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not path.is_symlink() and mode & 0o077:
            found[str(path.relative_to(folder))] = oct(mode & 0o777)
    return found
