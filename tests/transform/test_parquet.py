from __future__ import annotations

import hashlib
import io
from datetime import date
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balance_bridge.errors import StoreDamaged
from balance_bridge.points import BalanceRequest
from balance_bridge.transform import balances, ledger

DIGEST_BYTES = 32


def frames(history: object) -> list[tuple[ModuleType, pd.DataFrame]]:
    book = ledger.build_ledger(history.legs())  # type: ignore[attr-defined]
    found = balances.balances_at(
        history.opening,  # type: ignore[attr-defined]
        history.closing,  # type: ignore[attr-defined]
        book,
        BalanceRequest("there", ["open", "close", "changes"], "UTC", "instant", date(2026, 3, 1)),
    )
    return [(ledger, book), (balances, found.frame)]


@given(st.data())
@settings(max_examples=12, deadline=None)
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


def footer_start(data: bytes) -> int:
    """Where a Parquet file's footer starts: its length stands before the last four bytes."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def sealed(content: bytes) -> bytes:
    footer = footer_start(content)
    return content[:footer] + hashlib.sha256(content).digest() + content[footer:]


def rewritten(data: bytes, version: bytes | None, drop: str | None = None) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    table = table.drop_columns([drop]) if drop else table
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"balance_bridge.format": version} if version else None), buffer)
    return sealed(buffer.getvalue())


def test_the_format_and_its_version_are_in_the_files_metadata(world: SimpleNamespace) -> None:
    history = world.History(0, 1, 1, {"BTC": 5})
    found = [pq.read_schema(io.BytesIO(module.to_parquet(frame))).metadata for module, frame in frames(history)]
    assert found == [{b"balance_bridge.format": b"ledger/1"}, {b"balance_bridge.format": b"balances/2"}]


@pytest.mark.parametrize("version", [None, b"ledger/2", b"balances/1", b"balances/3", b"\xff", b"other/1"])
def test_an_unknown_version_is_refused(world: SimpleNamespace, version: bytes | None) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        with pytest.raises(StoreDamaged, match="This release reads"):
            module.from_parquet(rewritten(module.to_parquet(frame), version))


def test_a_balances_file_is_no_ledger(world: SimpleNamespace) -> None:
    (_, book), (_, found) = frames(world.History(0, 1, 1, {"BTC": 5}))
    with pytest.raises(StoreDamaged, match=r"'balances/2'.*reads 'ledger/1'"):
        ledger.from_parquet(balances.to_parquet(found))
    with pytest.raises(StoreDamaged, match=r"'ledger/1'.*reads 'balances/2'"):
        balances.from_parquet(ledger.to_parquet(book))


def test_other_columns_under_the_same_version_are_refused(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        with pytest.raises(StoreDamaged, match="has other columns"):
            module.from_parquet(rewritten(module.to_parquet(frame), module.FORMAT.version.encode(), drop="balance"))


def test_a_torn_file_is_refused(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        written = module.to_parquet(frame)
        for length in [0, 3, 8, 40, len(written) // 2, len(written) - 1]:
            with pytest.raises(StoreDamaged, match="no whole Parquet file"):
                module.from_parquet(written[:length])


def moving(world: SimpleNamespace, records: int) -> Any:
    """A history of some records, so that every column has values of its own."""
    made = [
        world.Record(sn, 1000 * sn, "order" if sn % 2 else "balance", (world.Leg("BTC", 7 * sn, False),), {"BTC": 9})
        for sn in range(2, records + 2)
    ]
    return world.History(0, 1, records + 2, {"BTC": 5, "USDT": 1}, tuple(made))


def test_a_damaged_byte_anywhere_is_found(world: SimpleNamespace) -> None:
    for module, frame in frames(moving(world, 20)):
        written = bytearray(module.to_parquet(frame))
        for place, byte in enumerate(written):
            for mask in (0xFF, 1 << place % 8):
                written[place] = byte ^ mask
                with pytest.raises(StoreDamaged, match="Run the day again"):
                    module.from_parquet(bytes(written))
            written[place] = byte
        pd.testing.assert_frame_equal(module.from_parquet(bytes(written)), frame)


def test_a_file_with_a_stretch_lost_doubled_or_overwritten_is_refused(world: SimpleNamespace) -> None:
    files = [(module, module.to_parquet(frame)) for module, frame in frames(moving(world, 20))]

    @given(st.data(), st.sampled_from(files))
    @settings(max_examples=100, deadline=None)
    def refused(data: st.DataObject, file: tuple[ModuleType, bytes]) -> None:
        module, written = file
        start = data.draw(st.integers(0, len(written)))
        end = data.draw(st.integers(start, len(written)))
        stretch = written[start:end]
        instead = data.draw(st.sampled_from([b"", 2 * stretch, bytes(len(stretch)), stretch[::-1]]))
        other = written[:start] + instead + written[end:]
        assume(other != written)
        with pytest.raises(StoreDamaged):
            module.from_parquet(other)

    refused()


def test_any_reader_of_parquet_reads_the_file_and_finds_a_damaged_page(world: SimpleNamespace) -> None:
    for module, frame in frames(moving(world, 20)):
        written = module.to_parquet(frame)
        table = pq.read_table(io.BytesIO(written), page_checksum_verification=True)
        assert table.to_pylist() == frame.to_dict("records")
        with pq.ParquetFile(io.BytesIO(written)) as file:
            group = file.metadata.row_group(0)
            ends = [
                group.column(index).data_page_offset + group.column(index).total_compressed_size
                for index in range(group.num_columns)
                if not group.column(index).has_dictionary_page
            ]
        assert ends
        for end in ends:
            # The last byte of a column's last page: a number of the data, not of the page's header.
            damaged = written[: end - 1] + bytes([written[end - 1] ^ 1]) + written[end:]
            with pytest.raises(OSError, match="CRC checksum verification failed"):
                pq.read_table(io.BytesIO(damaged), page_checksum_verification=True)


def test_the_digest_lies_between_the_last_page_and_the_footer(world: SimpleNamespace) -> None:
    for module, frame in frames(moving(world, 3)):
        written = module.to_parquet(frame)
        footer = footer_start(written)
        assert sealed(written[: footer - DIGEST_BYTES] + written[footer:]) == written


@pytest.mark.parametrize("content", [b"PAR1" + bytes(8) + b"PAR1", b"PAR1" + b"\xff" * 40 + b"\x20\0\0\0PAR1"])
def test_what_is_no_parquet_file_is_refused_though_its_digest_is_right(content: bytes) -> None:
    for module in (ledger, balances):
        with pytest.raises(StoreDamaged, match="cannot be read"):
            module.from_parquet(sealed(content))


def test_pandas_own_remarks_are_not_in_the_file(world: SimpleNamespace) -> None:
    for module, frame in frames(world.History(0, 1, 1, {"BTC": 5})):
        indexed = frame.set_axis(pd.Index(range(5, 5 + len(frame)), name="other"))
        assert module.to_parquet(indexed) == module.to_parquet(frame)
        assert isinstance(pa.array(module.from_parquet(module.to_parquet(frame))["asset"]), pa.ChunkedArray | pa.Array)
