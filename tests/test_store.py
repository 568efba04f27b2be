from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from balance_bridge.errors import StoreDamaged, StoreUnwritable
from balance_bridge.store import Store, to_json
from doubles import Killed


@pytest.fixture(params=["folder", "file url", "memory url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "balances")
    if request.param == "file url":
        return Store(UPath(f"file://{tmp_path}/balances"))
    # A name of its own: fsspec's memory is one for the whole process.
    return Store(UPath(f"memory://{tmp_path}/balances"))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_object_reads_as_it_was_written(store: Store) -> None:
    assert store.put("raw/main/2026-11-20/snapshot/0001.gz", b"\x00\xff\r\n") is True
    assert store.read("raw/main/2026-11-20/snapshot/0001.gz") == b"\x00\xff\r\n"
    assert store.exists("raw/main/2026-11-20/snapshot/0001.gz")


def test_the_first_writer_wins_and_content_never_changes(store: Store) -> None:
    assert store.put("raw/a/1", b"first") is True
    assert store.put("raw/a/1", b"second") is False
    assert store.read("raw/a/1") == b"first"


def test_an_empty_object_is_an_object(store: Store) -> None:
    assert store.put("raw/a/1", b"") is True
    assert store.read("raw/a/1") == b""
    assert store.put("raw/a/1", b"x") is False


def test_what_is_missing_is_named(store: Store) -> None:
    assert not store.exists("raw/a/1")
    with pytest.raises(StoreDamaged, match=r"balances/raw/a/1 is missing"):
        store.read("raw/a/1")


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("raw/a/1", b"x")
    assert not store.exists("raw/a")


def test_a_list_is_sorted_and_ends_at_the_folder(store: Store) -> None:
    for key in ("raw/b/2", "raw/a/2", "raw/a/1/deep/er", "raw/ab/1", "raw/a/10"):
        store.put(key, b"x")
    assert store.list("raw/a") == ["raw/a/1/deep/er", "raw/a/10", "raw/a/2"]
    assert store.list("raw") == ["raw/a/1/deep/er", "raw/a/10", "raw/a/2", "raw/ab/1", "raw/b/2"]
    assert store.list("ledger") == []


def test_a_series_counts_up_and_the_same_content_is_not_added_twice(store: Store) -> None:
    assert store.append("ledger/a", ".json", b"1") == "ledger/a/0001.json"
    assert store.append("ledger/a", ".json", b"1") == "ledger/a/0001.json"
    assert store.append("ledger/a", ".json", b"2") == "ledger/a/0002.json"
    # Going back to what was said before is something new to say.
    assert store.append("ledger/a", ".json", b"1") == "ledger/a/0003.json"
    assert store.series("ledger/a", ".json") == [f"ledger/a/000{number}.json" for number in (1, 2, 3)]
    assert store.newest("ledger/a", ".json") == "ledger/a/0003.json"


def test_a_series_holds_its_own_names_only(store: Store) -> None:
    for name in ("0001.parquet", "note.json", "00001.json", "deep/0009.json", "0007.json.bak"):
        store.put(f"ledger/a/{name}", b"x")
    assert store.series("ledger/a", ".json") == []
    assert store.newest("ledger/a", ".json") is None
    assert store.append("ledger/a", ".json", b"1") == "ledger/a/0001.json"


def test_a_series_that_is_full_is_an_error_and_no_endless_loop(store: Store) -> None:
    store.put("ledger/a/9999.json", b"1")
    assert store.append("ledger/a", ".json", b"1") == "ledger/a/9999.json"
    with pytest.raises(StoreDamaged, match="9999 objects"):
        store.append("ledger/a", ".json", b"2")


def test_a_copy_that_was_faster_only_moves_the_next_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, raced = store.put, []

    def racing(key: str, data: bytes) -> bool:
        if not raced:
            raced.append(key)
            put(key, b"theirs")
        return put(key, data)

    monkeypatch.setattr(store, "put", racing)
    assert store.append("ledger/a", ".json", b"ours") == "ledger/a/0002.json"
    assert [store.read(key) for key in store.series("ledger/a", ".json")] == [b"theirs", b"ours"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"1", b"2", b"3"]), max_size=8))
def test_a_series_is_its_history_without_repeats_in_a_row(contents: list[bytes]) -> None:
    store = Store(UPath(f"memory:///{os.urandom(8).hex()}"))
    for content in contents:
        assert store.read(store.append("s", ".x", content)) == content
    expected = [new for old, new in zip([None, *contents], contents, strict=False) if old != new]
    assert [store.read(key) for key in store.series("s", ".x")] == expected


def test_only_probes_and_what_an_index_has_replaced_can_be_removed(store: Store) -> None:
    for key in ("check/1", "index/2026-11/a/0001.json"):
        store.put(key, b"x")
        store.discard(key)
        assert not store.exists(key)
    for key in ("raw/a/1", "receipts/index/1"):
        store.put(key, b"x")
        with pytest.raises(ValueError, match="must stay"):
            store.discard(key)
        assert store.exists(key)


def test_json_that_is_damaged_is_named(store: Store) -> None:
    store.put("receipts/a/1", to_json({"b": 1, "a": "ü"}))
    assert store.read("receipts/a/1").startswith('{\n "a": "ü",\n "b": 1,\n "sha256": "'.encode())
    assert store.read_json("receipts/a/1") == {"a": "ü", "b": 1}
    for number, damaged in enumerate((b"", b"{", b"\xff\xfe\x00")):
        store.put(f"receipts/b/{number}", damaged)
        with pytest.raises(StoreDamaged, match=rf"receipts/b/{number} is not JSON"):
            store.read_json(f"receipts/b/{number}")


def test_no_document_can_hold_a_number_that_is_none() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": float("nan")})


def test_drafts_do_not_show(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("raw/a/0001.gz", b"x")
    (tmp_path / "raw/a/.0002.gz.0123456789abcdef").write_bytes(b"half of it")
    assert store.list("raw") == ["raw/a/0001.gz"]
    assert store.append("raw/a", ".gz", b"y") == "raw/a/0002.gz"


def test_adding_to_a_series_is_given_up_where_listings_never_show_what_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("ledger/a/0001.json", b"theirs")
    monkeypatch.setattr(store, "list", lambda _: [])
    monkeypatch.setattr("balance_bridge.store._MOST", 20)
    with pytest.raises(StoreUnwritable, match="ledger/a: others added an object each time"):
        store.append("ledger/a", ".json", b"ours")


@pytest.mark.parametrize("at", ["write", "fsync", "link"])
def test_a_crash_before_the_object_is_whole_leaves_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        break_at(patched, at, Killed())
        with pytest.raises(Killed):
            store.put("raw/a/1", b"whole")
    assert not store.exists("raw/a/1")
    assert store.list("raw") == []
    assert store.put("raw/a/1", b"whole") is True
    assert store.read("raw/a/1") == b"whole"


@pytest.mark.parametrize("at", ["write", "fsync", "link"])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        break_at(patched, at, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StoreUnwritable, match=r"raw/a/1 cannot be written\. No space left on device\. .*option"):
            store.put("raw/a/1", b"whole")
        with pytest.raises(StoreUnwritable):
            store.append("raw/a", ".gz", b"whole")
    assert files(tmp_path) == []
    assert store.put("raw/a/1", b"whole") is True


def break_at(patched: pytest.MonkeyPatch, at: str, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    if at == "write":

        def half(path: Path, mode: str, **kwargs: Any) -> Any:
            file = open(path, mode, **kwargs)  # noqa: SIM115 - handed on
            file.write(b"who")
            return _Failing(file, fail)

        patched.setattr("balance_bridge.private.open", half, raising=False)
    else:
        patched.setattr(os, at, fail)


class _Failing:
    def __init__(self, file: Any, fail: Callable[..., Any]) -> None:
        self._file = file
        self.write = fail

    def __enter__(self) -> _Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_a_file_in_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"in the way")
    store = Store(tmp_path)
    for key in ("raw/a", "raw/a/1", "raw/a/b/1"):
        with pytest.raises(StoreUnwritable, match=rf"{key} cannot be written"):
            store.put(key, b"x")
    assert (tmp_path / "raw").read_bytes() == b"in the way"


def test_a_bucket_that_cannot_be_written_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    root = UPath("memory:///unwritable")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(root.fs), "pipe_file", refuse)
    with pytest.raises(StoreUnwritable, match=r"raw/a/1 cannot be written\. Access Denied"):
        Store(root).put("raw/a/1", b"x")


def test_listings_that_fsspec_remembers_do_not_hide_what_others_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    root = UPath("memory:///cached")
    Store(root).put("raw/a/0001.gz", b"theirs")
    find, remembered = type(root.fs).find, {"/cached/raw/a": []}

    def cached_find(fs: Any, path: str, **kwargs: Any) -> Any:
        return remembered.get(path, find(fs, path, **kwargs))

    monkeypatch.setattr(type(root.fs), "find", cached_find)
    monkeypatch.setattr(type(root.fs), "invalidate_cache", lambda _, __=None: remembered.clear())
    assert Store(root).append("raw/a", ".gz", b"ours") == "raw/a/0002.gz"


def test_a_folder_that_fills_while_it_is_listed_is_no_object_of_its_own() -> None:
    """As s3fs does it: an empty listing, and a moment later the folder is there."""
    fs = SimpleNamespace(protocol="s3", invalidate_cache=lambda: None, find=lambda place: [place.removeprefix("/")])
    assert Store(SimpleNamespace(fs=fs, path="/bucket")).list("a/b") == []


def test_what_fsspec_remembers_to_be_missing_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    root = UPath("memory:///missed")
    Store(root).put("raw/a", b"theirs")
    isfile, missing = type(root.fs).isfile, {"/missed/raw/a"}

    def cached_isfile(fs: Any, path: str) -> Any:
        return path not in missing and isfile(fs, path)

    monkeypatch.setattr(type(root.fs), "isfile", cached_isfile)
    monkeypatch.setattr(type(root.fs), "invalidate_cache", lambda _, __=None: missing.clear())
    assert not Store(root).put("raw/a", b"ours")
    assert Store(root).read("raw/a") == b"theirs"


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_an_object_of_a_series_is_the_newest_until_one_follows(tmp_path: Path, place: str) -> None:
    store = Store(tmp_path if place == "folder" else UPath("memory:///followed"))
    key = store.append("raw/a", ".json", b"1")
    assert not store.has_follower(key)
    store.append("raw/a", ".json", b"1")
    assert not store.has_follower(key)
    store.append("raw/a", ".json", b"2")
    assert store.has_follower(key)
    assert not store.has_follower("raw/a/0002.json")


def test_the_folders_that_were_made_for_an_object_are_as_lasting_as_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, opened, fsync, open_ = [], {}, os.fsync, os.open

    def noted_open(path: Any, *options: Any) -> int:
        handle = open_(path, *options)
        opened[handle] = Path(path)
        return handle

    monkeypatch.setattr("os.open", noted_open)
    monkeypatch.setattr("os.fsync", lambda handle: (synced.append(opened.pop(handle, None)), fsync(handle)))
    store = Store(tmp_path / "new")
    store.put("raw/a/1", b"x")
    assert set(synced) >= {tmp_path, tmp_path / "new", tmp_path / "new" / "raw", tmp_path / "new" / "raw" / "a"}
    synced.clear()
    store.put("raw/a/2", b"x")
    assert [each for each in synced if each and each.is_dir()] == [tmp_path / "new" / "raw" / "a"]


def test_threads_that_put_one_key_agree_on_one_content(tmp_path: Path) -> None:
    store, wrote = Store(tmp_path), []
    start = threading.Barrier(8)

    def put(name: bytes) -> None:
        start.wait(timeout=10)
        if store.put("raw/a/1", name * 10_000):
            wrote.append(name * 10_000)

    threads = [threading.Thread(target=put, args=(b"%d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wrote == [store.read("raw/a/1")]
    assert files(tmp_path) == ["raw/a/1"]


APPENDER = """
import sys
from pathlib import Path
from balance_bridge.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    store.append("receipts/a", ".json", f"{sys.argv[2]} {number}".encode())
"""


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.communicate(b"go\n", timeout=60)
        assert process.returncode == 0
    store = Store(tmp_path)
    keys = store.series("receipts/a", ".json")
    assert keys == [f"receipts/a/{number:04d}.json" for number in range(1, 51)]
    contents = [store.read(key).decode() for key in keys]
    for name in ("one", "two"):
        assert [text for text in contents if text.startswith(name)] == [f"{name} {number}" for number in range(25)]
    assert files(tmp_path) == keys


AIRFLOW_PATHS = """
import sys
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from balance_bridge.errors import StoreDamaged
from balance_bridge.store import Store
attach("memory", fs=MemoryFileSystem())  # what a cloud's provider does for its own scheme
for url in ("memory:///balances", f"file://{sys.argv[1]}/balances"):
    store = Store(ObjectStoragePath(url))
    assert store.append("raw/a", ".gz", b"1") == "raw/a/0001.gz", url
    assert store.append("raw/a", ".gz", b"2") == "raw/a/0002.gz", url
    assert store.put("raw/a/0002.gz", b"3") is False, url
    assert store.read("raw/a/0002.gz") == b"2", url
    assert store.list("raw") == ["raw/a/0001.gz", "raw/a/0002.gz"], url
    assert not store.exists("raw/a/0003.gz"), url
    try:
        store.read("raw/a/0003.gz")
        raise SystemExit("read what is missing")
    except StoreDamaged:
        pass
print("done")
"""


@pytest.mark.slow  # a process of its own that imports Airflow, which reads its home while it is imported
def test_airflow_s_paths_are_roots_as_well(tmp_path: Path) -> None:
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", AIRFLOW_PATHS, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stderr
    assert files(tmp_path / "balances") == ["raw/a/0001.gz", "raw/a/0002.gz"]


def test_a_store_says_where_it_is(tmp_path: Path) -> None:
    assert Store(tmp_path).describe("raw/a/1") == f"{tmp_path}/raw/a/1"
    assert str(tmp_path) in repr(Store(tmp_path))


def test_a_document_changed_by_hand_is_named(store: Store) -> None:
    store.put("raw/a/1", to_json({"pages": 3}))
    store.put("raw/a/2", store.read("raw/a/1").replace(b"3", b"4", 1))
    with pytest.raises(StoreDamaged, match=r"raw/a/2 is not what was written\. its digest is another one"):
        store.read_json("raw/a/2")
    store.put("raw/a/3", b'{"pages": 4}')
    assert store.read_json("raw/a/3") == {"pages": 4}, "what has no digest is read as it is"


def test_what_can_be_done_without_is_removed_with_its_empty_folders_and_receipts_are_not(store: Store) -> None:
    for key in ("raw/a/2026-11-20/1", "raw/a/2026-11-20/x/2", "receipts/a/2026-11-20/1"):
        store.put(key, b"x")
    store.prune("raw/a/2026-11-20/x/2")
    assert store.list("raw") == ["raw/a/2026-11-20/1"]
    store.prune("raw/a/2026-11-20/1")
    assert store.list("raw") == []
    for key in ("receipts/a/2026-11-20/1", "check/x", "rawr/x"):
        with pytest.raises(ValueError, match="must stay"):
            store.prune(key)
    assert store.size("receipts/a/2026-11-20/1") == 1


def test_a_document_with_numbers_as_keys_survives(store: Store) -> None:
    store.put("raw/a/9", to_json({10: "b", 9: "a"}))
    assert store.read_json("raw/a/9") == {"9": "a", "10": "b"}
    with pytest.raises(ValueError, match="no key 'sha256' of its own"):
        to_json({"sha256": "x"})


def test_what_the_store_makes_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(0o755)
    (tmp_path / "mine").chmod(0o755)
    before = os.umask(0)
    try:
        Store(tmp_path / "mine" / "balances").put("raw/a/1", b"x")
        Store(UPath(f"file://{tmp_path}/mine/other")).append("raw/a", ".gz", b"x")
    finally:
        os.umask(before)
    made = [each for each in (tmp_path / "mine").rglob("*")]
    assert {each.stat().st_mode & 0o777 for each in made if each.is_dir()} == {0o700}
    assert {each.stat().st_mode & 0o777 for each in made if each.is_file()} == {0o600}
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755, "a folder of the user's own"
