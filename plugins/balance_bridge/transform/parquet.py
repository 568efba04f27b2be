"""Frames as Parquet, with the format's version in the file and the same bytes for the same frame."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from balance_bridge.errors import StoreDamaged

FORMAT_KEY = b"balance_bridge.format"


def write(frame: pd.DataFrame, schema: pa.Schema, version: str) -> bytes:
    """Write a frame.

    Args:
        frame: Has the schema's columns.
        schema: What is written, in this order.
        version: Name and version of the format, such as ``ledger/1``.

    Returns:
        The file's content; it holds no time and no host, so equal frames give equal bytes.
    """
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    # What pandas adds depends on its version, and how the columns are cut on how the frame came to be.
    table = table.replace_schema_metadata({FORMAT_KEY: version.encode()}).combine_chunks()
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=["asset", *_repeating(schema)])
    return buffer.getvalue()


def read(data: bytes, schema: pa.Schema, version: str) -> pd.DataFrame:
    """Read what :func:`write` wrote.

    Raises:
        StoreDamaged: If it is no whole Parquet file, or of another format, version or schema.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            found = (file.schema_arrow.metadata or {}).get(FORMAT_KEY, b"").decode(errors="replace")
            if found != version:
                raise StoreDamaged(
                    f"a Parquet object is of format {found or 'unknown'!r}, this release reads {version!r}: "
                    "use the release that wrote it, or run the day again"
                )
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise StoreDamaged(f"a {version} object is no readable Parquet file ({error}): run the day again") from error
    if not table.schema.remove_metadata().equals(schema):
        raise StoreDamaged(f"a {version} object has other columns ({table.schema.names}): run the day again")
    return to_frame(table)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table as a frame of Arrow columns."""
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _repeating(schema: pa.Schema) -> list[str]:
    """Text columns of few values; a dictionary of ids or amounts would only grow the file and the time."""
    return [name for name in ("kind", "event", "points") if name in schema.names]
