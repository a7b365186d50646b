"""Logged predictions as a parity check takes them: one bundle's rows of a table of the prediction log."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.served_rows import served_rows
from skewless.canonical_json import Digest
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract
from skewless.monitor_limits import PARITY_CHUNK_ROWS
from skewless.parity.check import Served
from skewless.parity.sampling import chosen, entity_hashes
from skewless.rollout.routes import Role

_REQUIRED = ("prediction_id", "as_of", "bundle_digest", "role", "rung", "tensor", "tensor_digest")


def answered(table: Any) -> Any:
    """The rows that answered somebody: a shadow stands beside a row that is there already."""
    return table.filter(pc.not_equal(table.column("role").cast(pa.string()), str(Role.SHADOW)))


def by_bundle(table: Any) -> Iterator[tuple[Digest, Any]]:
    """The rows of each bundle, by digest."""
    digests = table.column("bundle_digest").cast(pa.string())
    for digest in sorted(set(digests.to_pylist())):
        yield Digest(digest), table.filter(pc.equal(digests, digest))


def sampled(table: Any, contract: FeatureContract, share: float) -> Any:
    """The rows of a sample of whole entities; see `sampling.chosen`."""
    if share >= 1.0 or not table.num_rows:
        return table
    keys = {key.name: column_from_arrow(table.column(f"key.{key.name}"), key.dtype) for key in contract.join_keys}
    return table.filter(pa.array(chosen(entity_hashes(keys, table.num_rows), share)))


def served_of(table: Any, contract: FeatureContract, output: str) -> Served:
    """Rows of one bundle of a log table; `output` names its model's output."""
    rows = served_rows(table, contract, output)
    return Served(
        prediction_ids=rows.prediction_ids,
        as_of=rows.as_of,
        given=rows.given,
        frame=rows.scored.frame,
        tensor=rows.scored.tensor,
        has_tensor=rows.tensor_known,
        tensor_digests=rows.tensor_digests,
        outputs=rows.scored.output,
        rungs=rows.rungs,
    )


def concatenated(tables: Sequence[Any]) -> Any:
    """Tables of one bundle's rows as one."""
    return pa.concat_tables([_plain(each) for each in tables], promote_options="default")


def _plain(table: Any) -> Any:
    """The table without dictionaries, of which each part may have another."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def file_batches(path: Path, start: int | None, end: int | None) -> Iterator[Any]:
    """Tables of at most PARITY_CHUNK_ROWS rows of a Parquet file in the columns of the log, as of [start, end) in µs.

    Raises InvalidRequest where it is no such file.
    """
    try:
        with pq.ParquetFile(path) as file:
            lacks = [name for name in _REQUIRED if name not in file.schema_arrow.names]
            if lacks:
                raise InvalidRequest(
                    f"`{path.name}` has no column `{lacks[0]}`",
                    path="--served",
                    allowed="Parquet in the columns of the prediction log; see docs/parity.md",
                )
            for batch in file.iter_batches(PARITY_CHUNK_ROWS):
                yield _within(pa.Table.from_batches([batch]), start, end)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidRequest(
            f"`{path.name}` cannot be read as Parquet: {error}", path="--served", allowed="a Parquet file"
        ) from error


def _within(table: Any, start: int | None, end: int | None) -> Any:
    moments = table.column("as_of").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    kept = np.ones(len(moments), dtype=np.bool_)
    if start is not None:
        kept &= moments >= start
    if end is not None:
        kept &= moments < end
    return table.filter(pa.array(kept))
