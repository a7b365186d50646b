"""Example rows of a model out of its Parquet file: all at once, or in parts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.duckdb_connection import connected
from skewless.dtypes import Column, Dtype
from skewless.features.contract import FeatureContract
from skewless.features.point_in_time import identifier, literal
from skewless.limits import TRAINING_PART_ROWS
from skewless.training.definition import ExampleTable, Period
from skewless.training.examples import NO_OUTCOME, Examples

_AS_OF_US = "skewless_as_of_us"


def read_examples(table: ExampleTable, data_folder: Path, contract: FeatureContract, period: Period) -> Examples:
    """The example rows asked in a period, ordered by `as_of` then by their place in the file."""
    with connected() as connection:
        return _examples(contract, connection.sql(_examples_sql(table, data_folder, contract, period)).to_arrow_table())


def example_parts(
    table: ExampleTable, data_folder: Path, contract: FeatureContract, period: Period
) -> Iterator[Examples]:
    """As `read_examples`, in parts of about TRAINING_PART_ROWS, of which one at a time is in memory; at least one."""
    with connected() as connection:
        reader = connection.sql(_examples_sql(table, data_folder, contract, period)).to_arrow_reader(TRAINING_PART_ROWS)
        parts = 0
        for batch in reader:
            parts += 1
            yield _examples(contract, pa.Table.from_batches([batch]))
        if not parts:
            yield _examples(contract, reader.schema.empty_table())


def newest_questions(
    table: ExampleTable, data_folder: Path, contract: FeatureContract, until: int, rows: int
) -> tuple[dict[str, Column], int]:
    """Join keys and request fields of the newest example rows asked until a moment (µs), and how many those are."""
    selected = ", ".join(identifier(name) for name, _ in _asked_columns(contract))
    as_of = f"epoch_us({identifier(table.as_of)})"
    with connected() as connection:
        found = connection.sql(
            f"SELECT {selected} FROM read_parquet({literal(str(data_folder / table.path))}) "
            f"WHERE {as_of} <= {until} ORDER BY {as_of} DESC LIMIT {rows}"
        ).to_arrow_table()
    columns = {name: column_from_arrow(found.column(name), dtype) for name, dtype in _asked_columns(contract)}
    return columns, found.num_rows


def _examples_sql(table: ExampleTable, data_folder: Path, contract: FeatureContract, period: Period) -> str:
    selected = ", ".join(identifier(name) for name, _ in _asked_columns(contract))
    as_of = f"epoch_us({identifier(table.as_of)})"
    return (
        f"SELECT {selected}, {as_of} AS {_AS_OF_US}, CAST({identifier(table.label)} AS BOOLEAN) AS skewless_label, "
        f"epoch_us({identifier(table.outcome_time)}) AS skewless_outcome_us "
        f"FROM read_parquet({literal(str(data_folder / table.path))}, file_row_number = true) "
        f"WHERE {as_of} >= {period.start} AND {as_of} < {period.end} ORDER BY {_AS_OF_US}, file_row_number"
    )


def _asked_columns(contract: FeatureContract) -> Sequence[tuple[str, Dtype]]:
    """Join keys and request fields, which are what an example gives."""
    return contract.columns[: len(contract.join_keys) + len(contract.request_fields)]


def _examples(contract: FeatureContract, result: pa.Table) -> Examples:
    label = result.column("skewless_label")
    outcome = result.column("skewless_outcome_us")
    return Examples(
        rows=result.num_rows,
        keys={name: column_from_arrow(result.column(name), dtype) for name, dtype in _asked_columns(contract)},
        as_of=result.column(_AS_OF_US).to_numpy().astype(np.int64),
        labels=label.fill_null(False).to_numpy().astype(np.bool_),
        labelled=label.is_valid().to_numpy().astype(np.bool_),
        outcome_time=outcome.fill_null(NO_OUTCOME).to_numpy().astype(np.int64),
    )
