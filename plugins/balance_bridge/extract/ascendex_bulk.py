"""Stored pages as legs, many pages at once and column by column.

The strict reading of :mod:`balance_bridge.extract.ascendex_answers` makes an object of every record, which a page of
500 does not mind and a day of a million does. Arrow reads the same JSON into columns several times faster. It is a
little less strict (it takes ``.5``, and a bare number where a text is due), so it is for pages that the strict reading
found good when they came, and only where nothing about them is unusual; of anything else it says so, and the strict
reading takes over, with its exact messages.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from balance_bridge.extract.ascendex_answers import ASSET
from balance_bridge.extract.paging import page_end
from balance_bridge.transform.schema import AMOUNT, LEGS

Int64 = npt.NDArray[np.int64]

_TEXT = pa.dictionary(pa.int32(), pa.string())
_LEG = pa.struct([("asset", pa.string()), ("curBalance", AMOUNT), ("deltaQty", AMOUNT), ("dataType", pa.string())])
_RECORD = [("sn", pa.int64()), ("transactTime", pa.int64()), ("data", pa.list_(_LEG))]
_ORDER = pa.struct([*_RECORD, ("orderId", pa.string()), ("orderType", pa.string()), ("side", pa.string())])
_BALANCE = pa.struct([*_RECORD, ("eventType", pa.string())])
_PAGE = pa.schema(
    [
        ("meta", pa.struct([("ac", pa.string()), ("accountId", pa.string())])),
        ("order", pa.list_(_ORDER)),
        ("balance", pa.list_(_BALANCE)),
    ]
)
_PARSE = pyarrow.json.ParseOptions(explicit_schema=_PAGE, newlines_in_values=True, unexpected_field_behavior="ignore")
# Larger than any page, so that no page spans more than two blocks; small enough to keep both cores busy.
_BLOCK_BYTES = 4 << 20


class Unusual(Exception):
    """Something about these pages is not as plain as it mostly is: read them strictly."""


@dataclass(frozen=True)
class _List:
    """One of the pages' two lists, flattened: a row per record.

    Attributes:
        counts: Records of each page.
        records: The records of all pages.
        sn: Their sequence numbers.
        legs: Legs of each record.
    """

    counts: Int64
    records: pa.StructArray
    sn: Int64
    legs: Int64


def legs_of_pages(
    bodies: Sequence[bytes], cursors: Sequence[int], *, category: str, limit: int, then: int | None, closing_sn: int
) -> pa.Table:
    """The legs of consecutive pages.

    Args:
        bodies: The pages' answers, in order of their cursors.
        cursors: The sequence number that each page was asked from.
        category: The account category that each page must be of.
        limit: Records that a full page holds at least.
        then: The cursor of the page behind these; None if there is none.
        closing_sn: The closing snapshot's sequence number.

    Returns:
        A table of the schema ``transform.schema.LEGS``, its text dictionary-encoded.

    Raises:
        Unusual: If the pages are not for this reading, or one does not lead to the next.
    """
    try:
        text = io.BytesIO(b"\n".join(bodies))
        options = pyarrow.json.ReadOptions(block_size=max(_BLOCK_BYTES, max(map(len, bodies)) + 1))
        pages = pyarrow.json.read_json(text, read_options=options, parse_options=_PARSE)
    except pa.ArrowException as error:
        raise Unusual(str(error)) from error
    meta = pages["meta"].combine_chunks()
    _only(pages.num_rows == len(bodies) and not meta.null_count)
    _only(meta.field("accountId").null_count == 0 and set(meta.field("ac").unique().to_pylist()) == {category})
    lists = [_flatten(pages[name], required) for name, required in (("order", "orderId"), ("balance", "eventType"))]
    ends = _ends(lists, cursors, limit, then, closing_sn)
    tables = [
        _legs(each, name, np.asarray(cursors), ends) for each, name in zip(lists, ("order", "balance"), strict=True)
    ]
    table = pa.concat_tables(tables)
    numbers = np.concatenate([each.sn[_kept(each, np.asarray(cursors), ends)] for each in lists])
    _only(len(np.unique(numbers)) == len(numbers))
    return table


def _only(usual: bool) -> None:
    if not usual:
        raise Unusual


def _flatten(column: pa.ChunkedArray, required: str) -> _List:
    pages = column.combine_chunks()
    counts = pc.list_value_length(pages).fill_null(0).to_numpy().astype(np.int64)
    records = pages.flatten()
    _only(not records.null_count)
    for name in ("sn", "transactTime", "data", required):
        _only(not records.field(name).null_count)
    sn = records.field("sn").to_numpy()
    _only(not len(sn) or (sn.min() >= 0 and records.field("transactTime").to_numpy().min() >= 0))
    legs = pc.list_value_length(records.field("data")).to_numpy().astype(np.int64)
    return _List(counts, records, sn, legs)


def _ends(lists: Sequence[_List], cursors: Sequence[int], limit: int, then: int | None, closing_sn: int) -> Int64:
    """Per page the last sequence number that it answers for."""
    starts = [np.concatenate(([0], np.cumsum(each.counts))) for each in lists]
    ends = np.empty(len(cursors), np.int64)
    for page, (cursor, following) in enumerate(zip(cursors, [*cursors[1:], then], strict=True)):
        sizes = [int(each.counts[page]) for each in lists]
        tops = [
            int(each.sn[start[page] : start[page + 1]].max()) if size else -1
            for each, start, size in zip(lists, starts, sizes, strict=True)
        ]
        end = page_end(sizes, tops, limit=limit, cursor=cursor)
        if following is None:
            _only(sum(sizes) < limit or end > closing_sn)
        else:
            _only(end == following > cursor)
        ends[page] = closing_sn if following is None else min(closing_sn, end - 1)
    return ends


def _kept(each: _List, cursors: Int64, ends: Int64) -> npt.NDArray[np.bool_]:
    first, last = np.repeat(cursors, each.counts), np.repeat(ends, each.counts)
    kept: npt.NDArray[np.bool_] = (each.sn >= first) & (each.sn <= last)
    return kept


def _legs(each: _List, kind: str, cursors: Int64, ends: Int64) -> pa.Table:
    kept = _kept(each, cursors, ends)
    of_leg = np.repeat(np.arange(len(each.sn)), each.legs)
    legs = each.records.field("data").flatten()
    if not kept.all():
        wanted = kept[of_leg]
        legs, of_leg = legs.filter(pa.array(wanted)), of_leg[wanted]
    _only(not legs.null_count)
    for name in ("asset", "curBalance", "deltaQty"):
        _only(not legs.field(name).null_count)
    record = pa.array(of_leg, pa.int32())

    records = each.records
    columns = {
        "sn": pa.array(each.sn[of_leg]),
        "at": pa.array(records.field("transactTime").to_numpy()[of_leg]).cast(pa.timestamp("ms", "UTC")),
        "kind": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(of_leg), np.int32)), pa.array([kind])),
        "event": _encoded(_order_events(records) if kind == "order" else records.field("eventType"), record),
        "order_id": _order_ids(records, record) if kind == "order" else pa.nulls(len(record), _TEXT),
        "asset": _assets(legs.field("asset")),
        "fee": pc.equal(legs.field("dataType"), "fee").fill_null(False),
        "delta": legs.field("deltaQty"),
        "balance": legs.field("curBalance"),
    }
    return pa.table([columns[name] for name in LEGS.names], LEGS.names)


def _assets(values: pa.Array) -> pa.DictionaryArray:
    encoded = values.dictionary_encode()
    _only(all(ASSET.fullmatch(asset) for asset in encoded.dictionary.to_pylist()))
    return encoded


def _encoded(values: pa.Array, record: pa.Array) -> pa.DictionaryArray:
    encoded = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(record), encoded.dictionary)


def _order_ids(records: pa.StructArray, record: pa.Array) -> pa.DictionaryArray:
    # Each leg points at its record's text: no copy of it.
    return pa.DictionaryArray.from_arrays(record, records.field("orderId"))


def _order_events(records: pa.StructArray) -> pa.Array:
    parts = [records.field(name) for name in ("side", "orderType")]
    for part in parts:
        _only(not part.null_count and not pc.any(pc.equal(pc.utf8_length(part), 0)).as_py())
    return pc.binary_join_element_wise(*map(pc.utf8_lower, parts), " ")
