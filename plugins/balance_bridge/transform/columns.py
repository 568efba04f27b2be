"""Whole columns as numpy arrays: codes for names, keys for pairs, and the ledger in order of asset and sn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from balance_bridge.transform.schema import LEDGER

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_KEY_LIMIT = 1 << 62


@dataclass(frozen=True)
class LedgerColumns:
    """A ledger's numbers, sorted by (asset, sn).

    Attributes:
        assets: Names in ascending order: those of the ledger and those handed in.
        code: Per row the asset's place in ``assets``.
        sn: Sequence numbers.
        at: UTC milliseconds.
        delta: Amounts, an Arrow array.
        balance: Amounts, an Arrow array.
    """

    assets: list[str]
    code: Int64
    sn: Int64
    at: Int64
    delta: pa.Array
    balance: pa.Array

    def __len__(self) -> int:
        return len(self.sn)


def ledger_columns(ledger: pd.DataFrame, assets: Iterable[str]) -> LedgerColumns:
    """A ledger's numbers, sorted by (asset, sn).

    Args:
        ledger: As ``build_ledger`` makes it.
        assets: Names that get a code even if the ledger does not have them.
    """
    names = ["sn", "at", "asset", "delta", "balance"]
    schema = pa.schema([LEDGER.field(name) for name in names])
    table = pa.Table.from_pandas(ledger[names], schema=schema, preserve_index=False)
    code, known = codes(whole(table["asset"]), assets)
    sn, at = int64(table["sn"]), int64(table["at"])
    order = sort_order(pair_keys(code, sn))
    delta, balance = whole(table["delta"]), whole(table["balance"])
    if order is not None:
        code, sn, at = code[order], sn[order], at[order]
        delta, balance = delta.take(pa.array(order)), balance.take(pa.array(order))
    return LedgerColumns(known, code, sn, at, delta, balance)


def codes(names: pa.Array, more: Iterable[str] = ()) -> tuple[Int64, list[str]]:
    """Each name's place in the ascending list of all names.

    Args:
        names: Text or dictionary-encoded text, without nulls.
        more: Names that belong to the list, used or not.

    Returns:
        The places, and the list: what the array holds and ``more``, without repeats.
    """
    encoded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    values = encoded.dictionary.to_pylist()
    used = np.flatnonzero(np.bincount(indices, minlength=len(values))).tolist()
    known = sorted({values[index] for index in used}.union(more))
    place = {name: index for index, name in enumerate(known)}
    places = np.array([place.get(value, -1) for value in values], dtype=np.int64)
    return places[indices] if len(indices) else np.zeros(0, np.int64), known


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, without a copy where it is one already."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def int64(column: pa.ChunkedArray | pa.Array) -> Int64:
    """A column of integers or instants, without nulls, as numbers."""
    numbers: Int64 = whole(pc.cast(column, pa.int64())).to_numpy()
    return numbers


def pair_keys(major: Int64, minor: Int64) -> Int64:
    """One number per pair, equal for equal pairs and ordered as the pairs are."""
    if not len(major):
        return np.zeros(0, np.int64)
    low_major, low_minor = int(major.min()), int(minor.min())
    span = int(minor.max()) - low_minor + 1
    if (int(major.max()) - low_major + 1) * span < _KEY_LIMIT:
        return (major - low_major) * span + (minor - low_minor)
    # The numbers lie too far apart for a product: their ranks do not.
    majors, minors = np.unique(major, return_inverse=True)[1], np.unique(minor, return_inverse=True)[1]
    ranked: Int64 = majors.astype(np.int64) * (int(minors.max()) + 1) + minors
    return ranked


def sort_order(keys: Int64) -> Int64 | None:
    """The order that sorts the keys and leaves equal ones as they are, or None if they are sorted already."""
    if (keys[1:] >= keys[:-1]).all():
        return None
    return np.argsort(keys, kind="stable")


def group_starts(sorted_keys: Int64) -> Int64:
    """Where each run of equal keys starts."""
    if not len(sorted_keys):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))
