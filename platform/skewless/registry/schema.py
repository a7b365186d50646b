"""Every table of the registry's database: importing this makes the metadata whole, for migrations and their tests."""

from skewless.registry import drift_tables, model_metric_tables, parity_tables, quality_tables, tables
from skewless.registry.tables import Base

__all__ = ["Base", "drift_tables", "model_metric_tables", "parity_tables", "quality_tables", "tables"]
