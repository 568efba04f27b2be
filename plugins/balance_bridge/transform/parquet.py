"""Frames as Parquet, with the format's version in the file and the same bytes for the same frame.

Each page has a checksum, which any reader of Parquet can verify. They leave the footer out, and a footer that was
damaged can lead to other rows; so the SHA-256 of the whole file lies in 32 bytes of its own between the last page and
the footer, where readers, who find the pages by the footer, never look.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from balance_bridge.errors import StoreDamaged

FORMAT_KEY = b"balance_bridge.format"
_REMEDY = "Run the day again"
# Text columns of few values; a dictionary of ids or amounts would only grow the file and the time.
_REPEATING = ("asset", "kind", "event", "points")

_DIGEST_BYTES = hashlib.sha256().digest_size
_TAIL_BYTES = 8  # the footer's length in four bytes, least first, and PAR1


@dataclass(frozen=True)
class Format:
    """What one kind of file holds.

    Attributes:
        version: Name and version, such as ``ledger/1``.
        schema: The columns, in their order.
    """

    version: str
    schema: pa.Schema

    def write(self, frame: pd.DataFrame) -> bytes:
        """A frame that has the schema's columns as a file's content.

        It holds no time and no host, so equal frames give equal bytes.
        """
        table = pa.Table.from_pandas(frame[self.schema.names], schema=self.schema, preserve_index=False)
        # What pandas adds depends on its version, and how the columns are cut on how the frame came to be.
        table = table.replace_schema_metadata({FORMAT_KEY: self.version.encode()}).combine_chunks()
        buffer = io.BytesIO()
        dictionaries = [name for name in _REPEATING if name in self.schema.names]
        pq.write_table(table, buffer, compression="zstd", use_dictionary=dictionaries, write_page_checksum=True)
        return _seal(buffer.getvalue())

    def read(self, data: bytes) -> pd.DataFrame:
        """Read what :meth:`write` wrote.

        Raises:
            StoreDamaged: If a byte of it is not the one that was written, or if it is of another format, version or
                schema.
        """
        # Checked before Arrow reads it: what Arrow makes of a damaged footer can be anything.
        if not _is_sealed(data):
            raise StoreDamaged(f"a {self.version} object is no whole Parquet file, or not the one written", do=_REMEDY)
        try:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
                found = (file.schema_arrow.metadata or {}).get(FORMAT_KEY, b"").decode(errors="replace")
                if found != self.version:
                    raise StoreDamaged(
                        f"a Parquet object is of format {found or 'unknown'!r}",
                        why=f"This release reads {self.version!r}",
                        do="Use the release that wrote it, or run the day again",
                    )
                table = file.read()
        except (pa.ArrowException, OSError) as error:
            raise StoreDamaged(f"a {self.version} object cannot be read", why=str(error), do=_REMEDY) from error
        if not table.schema.remove_metadata().equals(self.schema):
            names = ", ".join(table.schema.names)
            raise StoreDamaged(f"a {self.version} object has other columns", why=names, do=_REMEDY)
        return to_frame(table)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table as a frame of Arrow columns."""
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _seal(content: bytes) -> bytes:
    """Put the content's digest before the footer."""
    footer = _footer_start(content)
    return content[:footer] + hashlib.sha256(content).digest() + content[footer:]


def _is_sealed(data: bytes) -> bool:
    """Whether the digest before the footer is that of the rest."""
    footer = _footer_start(data)
    pages = footer - _DIGEST_BYTES
    if pages < 0:
        return False
    view = memoryview(data)
    digest = hashlib.sha256(view[:pages])
    digest.update(view[footer:])
    return digest.digest() == view[pages:footer]


def _footer_start(data: bytes) -> int:
    """Where the footer starts according to the file's last bytes; below 0 if that cannot be."""
    return len(data) - _TAIL_BYTES - int.from_bytes(data[-_TAIL_BYTES:-4], "little")
