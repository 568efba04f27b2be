"""What this package writes can be read by its owner only, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from balance_bridge import private


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_that_was_missing_is_its_owners_alone(tmp_path: Path) -> None:
    private.make_folder(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / each) for each in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_folder_that_exists_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(0o755)
    private.make_folder(tmp_path / "mine")
    private.make_folder(tmp_path / "mine" / "new")
    assert (mode(tmp_path / "mine"), mode(tmp_path / "mine" / "new")) == (0o755, 0o700)


def test_a_file_where_a_folder_is_due_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for path in ("a", "a/b", "a/b/c"):
        with pytest.raises(OSError, match=r"exists|directory"):
            private.make_folder(tmp_path / path)


def test_a_file_is_its_owners_alone_and_its_folder_too(tmp_path: Path) -> None:
    private.make_file(tmp_path / "new" / "file", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert (mode(tmp_path / "new"), mode(tmp_path / "new" / "file")) == (0o700, 0o600)
    assert os.listdir(tmp_path / "new") == ["file"]


def test_a_file_that_exists_keeps_its_content_and_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "mine").chmod(0o644)
    private.make_file(tmp_path / "mine", b"other")
    assert ((tmp_path / "mine").read_bytes(), mode(tmp_path / "mine")) == (b"mine", 0o644)


def test_a_file_that_another_process_makes_at_the_same_moment_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def slower(draft: Path, path: Path) -> None:
        path.write_bytes(b"theirs")
        link(draft, path)

    monkeypatch.setattr(os, "link", slower)
    private.make_file(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["file"]
