"""Every table of the registry's database: importing this makes the metadata whole, for migrations and their tests."""

from skewless.registry import (
    definition_tables,
    drift_tables,
    entity_deletion_tables,
    ingest_tables,
    lease_tables,
    materialization_tables,
    model_metric_tables,
    parity_tables,
    quality_tables,
    schedule_tables,
    tables,
)
from skewless.registry.tables import Base

__all__ = [
    "Base",
    "definition_tables",
    "drift_tables",
    "entity_deletion_tables",
    "ingest_tables",
    "lease_tables",
    "materialization_tables",
    "model_metric_tables",
    "parity_tables",
    "quality_tables",
    "schedule_tables",
    "tables",
]
