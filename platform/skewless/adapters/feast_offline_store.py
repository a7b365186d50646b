"""Feast's DuckDB offline store, made to respect `created_time` when it materializes.

Feast's own materialization cuts at event time only, so a row that became known after `end_date` would reach the
online store too early (and training would not have seen it). Named in a repository's `feature_store.yaml` as the
`offline_store` type, so `feast materialize` and `skewless materialize` both obey the visibility rule.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores import duckdb as feast_duckdb
from feast.infra.offline_stores.ibis import pull_all_from_table_or_query_ibis, pull_latest_from_table_or_query_ibis
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.repo_config import RepoConfig
from ibis.expr.types import Table

_JUDGED: dict[str, Path] = {}
"""By a source's path: the Parquet file of those of its rows that a quality gate let pass."""


@contextmanager
def judged_rows(source_path: str, rows: Path) -> Iterator[None]:
    """While the block runs, Feast reads `rows` in place of the source at that path, in this process."""
    _JUDGED[source_path] = rows
    try:
        yield
    finally:
        del _JUDGED[source_path]


class VisibleDuckDBOfflineStoreConfig(feast_duckdb.DuckDBOfflineStoreConfig):
    """The same settings as Feast's DuckDB store; Feast finds this class by its name."""

    type: str = "skewless.adapters.feast_offline_store.VisibleDuckDBOfflineStore"


class VisibleDuckDBOfflineStore(feast_duckdb.DuckDBOfflineStore):
    """Pulls only rows whose event and created time are both at or before the end of the range asked for."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest visible row of each entity at `end_date`."""
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns or [DUMMY_ENTITY_ID],
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            **_visible_access(config, end_date),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row of the range that is visible at `end_date`; None leaves that side open."""
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns or [DUMMY_ENTITY_ID],
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            **_visible_access(config, end_date),
        )


def _visible_access(config: RepoConfig, end_date: datetime | None) -> dict[str, Any]:
    """Arguments that both pulls share: the reader that cuts, and Feast's own writer and staging place."""
    return {
        "data_source_reader": partial(_read_visible, end_date=end_date),
        "data_source_writer": feast_duckdb._write_data_source,  # noqa: SLF001  # Feast offers no public name
        "staging_location": config.offline_store.staging_location,
        "staging_location_endpoint_override": config.offline_store.staging_location_endpoint_override,
    }


def _read_visible(data_source: DataSource, repo_path: str, *, end_date: datetime | None) -> Table:
    if (judged := _JUDGED.get(getattr(data_source, "path", ""))) is not None:
        data_source = copy.deepcopy(data_source)  # Feast's own, which it may keep
        data_source.file_options.uri = str(judged)  # type: ignore[attr-defined]  # only a file source has a path
    table = feast_duckdb._read_data_source(data_source, repo_path)  # noqa: SLF001  # Feast offers no public name
    # The key under which Feast stores a view without an entity; Feast's other stores add it in their SQL.
    table = table.mutate(**{DUMMY_ENTITY_ID: ibis.literal(DUMMY_ENTITY_VAL)})
    created = data_source.created_timestamp_column
    if end_date is None or not created:
        return table
    cut = end_date.astimezone(UTC).replace(tzinfo=None)
    return table.filter(table[created].cast("timestamp") <= ibis.literal(cut))
