from __future__ import annotations

import io
from types import ModuleType, SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import StoreDamaged
from balance_bridge.transform import balances, ledger


def frames(history: object) -> list[tuple[ModuleType, pd.DataFrame]]:
    book = ledger.build_ledger(history.legs())  # type: ignore[attr-defined]
    found = balances.balances_at(
        history.opening,  # type: ignore[attr-defined]
        history.closing,  # type: ignore[attr-defined]
        book,
        ["open", "close", "changes"],
        "UTC",
        "instant",
    )
    return [(ledger, book), (balances, found.frame)]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_frame_survives_the_file_and_equal_frames_give_equal_bytes(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    for module, frame in frames(data.draw(world.histories())):
        written = module.to_parquet(frame)
        read = module.from_parquet(written)
        pd.testing.assert_frame_equal(read, frame)
        assert module.to_parquet(read) == written
        pieces = pd.concat([frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :]])
        assert module.to_parquet(pieces) == written


def rewritten(data: bytes, version: bytes | None, drop: str | None = None) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    table = table.drop_columns([drop]) if drop else table
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"balance_bridge.format": version} if version else None), buffer)
    return buffer.getvalue()


def test_the_format_and_its_version_are_in_the_files_metadata(world: SimpleNamespace) -> None:
    history = world.History(0, 1, 1, {"BTC": 5})
    found = [pq.read_schema(io.BytesIO(module.to_parquet(frame))).metadata for module, frame in frames(history)]
    assert found == [{b"balance_bridge.format": b"ledger/1"}, {b"balance_bridge.format": b"balances/1"}]


@pytest.mark.parametrize("version", [None, b"ledger/2", b"balances/2", b"\xff", b"other/1"])
def test_an_unknown_version_is_refused(world: SimpleNamespace, version: bytes | None) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        with pytest.raises(StoreDamaged, match="this release reads"):
            module.from_parquet(rewritten(module.to_parquet(frame), version))


def test_a_balances_file_is_no_ledger(world: SimpleNamespace) -> None:
    (_, book), (_, found) = frames(world.History(0, 1, 1, {"BTC": 5}))
    with pytest.raises(StoreDamaged, match="'balances/1', this release reads 'ledger/1'"):
        ledger.from_parquet(balances.to_parquet(found))
    with pytest.raises(StoreDamaged, match="'ledger/1', this release reads 'balances/1'"):
        balances.from_parquet(ledger.to_parquet(book))


def test_other_columns_under_the_same_version_are_refused(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        with pytest.raises(StoreDamaged, match="has other columns"):
            module.from_parquet(rewritten(module.to_parquet(frame), module.FORMAT.encode(), drop="balance"))


def test_a_torn_file_is_refused(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        written = module.to_parquet(frame)
        for length in [0, 3, 8, len(written) // 2, len(written) - 1]:
            with pytest.raises(StoreDamaged, match="no readable Parquet file"):
                module.from_parquet(written[:length])


def test_pandas_own_remarks_are_not_in_the_file(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        indexed = frame.set_axis(pd.Index(range(5, 5 + len(frame)), name="other"))
        assert module.to_parquet(indexed) == module.to_parquet(frame)
        assert isinstance(pa.array(module.from_parquet(module.to_parquet(frame))["asset"]), pa.ChunkedArray | pa.Array)
