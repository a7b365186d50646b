"""Feast's DuckDB offline store, made to respect `created_time` when it materializes.

Feast's own materialization cuts at event time only, so a row that became known after `end_date` would reach the
online store too early (and training would not have seen it). Named in a repository's `feature_store.yaml` as the
`offline_store` type, so `feast materialize` and `skewless materialize` both obey the visibility rule.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores import duckdb as feast_duckdb
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from ibis.expr.types import Table

from skewless.adapters.offline_sources import opened
from skewless.features.point_in_time import OfflineSource, SourceForm

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
            **_visible_access(config, end_date, [*join_key_columns, *feature_name_columns]),
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
            **_visible_access(config, end_date, [*join_key_columns, *feature_name_columns]),
        )

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """As Feast's own, over every kind of source that can be materialized."""
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
            data_source_reader=partial(_read, columns=_columns(feature_views)),
            **_written_access(config),
        )


def _visible_access(config: RepoConfig, end_date: datetime | None, columns: Sequence[str]) -> dict[str, Any]:
    """Arguments that both pulls share: the reader that cuts, and where Feast writes.

    `columns` are the keys and features, for a source that has no file to say so.
    """
    return {"data_source_reader": partial(_read_visible, end_date=end_date, columns=columns), **_written_access(config)}


def _written_access(config: RepoConfig) -> dict[str, Any]:
    """Feast's own writer and staging place."""
    return {
        "data_source_writer": feast_duckdb._write_data_source,  # noqa: SLF001  # Feast offers no public name
        "staging_location": config.offline_store.staging_location,
        "staging_location_endpoint_override": config.offline_store.staging_location_endpoint_override,
    }


def _read_visible(
    data_source: DataSource, repo_path: str, *, end_date: datetime | None, columns: Sequence[str]
) -> Table:
    table = _read(data_source, repo_path, columns=columns)
    # The key under which Feast stores a view without an entity; Feast's other stores add it in their SQL.
    table = table.mutate(**{DUMMY_ENTITY_ID: ibis.literal(DUMMY_ENTITY_VAL)})
    created = data_source.created_timestamp_column
    if end_date is None or not created:
        return table
    cut = end_date.astimezone(UTC).replace(tzinfo=None)
    return table.filter(table[created].cast("timestamp") <= ibis.literal(cut))


def _read(data_source: DataSource, repo_path: str, *, columns: Sequence[str]) -> Table:
    """All rows of a source: what a gate let pass, the files of a Delta table, a folder or a glob, or as Feast reads it.

    Feast itself reads Delta tables by an extension of DuckDB that it would fetch from a network.
    """
    if not isinstance(data_source, FileSource):
        return feast_duckdb._read_data_source(data_source, repo_path)  # noqa: SLF001  # Feast offers no public name
    if (judged := _JUDGED.get(data_source.path)) is not None:
        return ibis.read_parquet(str(judged))
    is_delta = isinstance(data_source.file_format, DeltaFormat)
    source = OfflineSource(
        view=str(data_source.name),
        path=FileSource.get_uri_for_file_path(repo_path, data_source.path),
        event_time=data_source.timestamp_field,
        created_time=data_source.created_timestamp_column or None,
        form=SourceForm.DELTA if is_delta else SourceForm.PARQUET,
    )
    files = None if "://" in source.path else opened(source).files
    if files is None:
        return feast_duckdb._read_data_source(data_source, repo_path)  # noqa: SLF001  # Feast offers no public name
    if files.paths:
        return ibis.read_parquet(list(files.paths), union_by_name=True, hive_partitioning=files.is_partitioned)
    times = {name: pa.timestamp("us", "UTC") for name in (source.event_time, source.created_time) if name}
    kinds = {**dict.fromkeys(columns, pa.string()), **times}
    return ibis.memtable(pa.schema(list(kinds.items())).empty_table())


def _columns(views: Sequence[FeatureView]) -> list[str]:
    return [column.name for view in views for column in (*view.entity_columns, *view.features)]
