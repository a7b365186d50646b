"""What a feature repository ships so that `skewless demo` can show it at work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skewless.timestamps import Micros
from skewless.training.definition import ModelDefinition


@dataclass(frozen=True, slots=True)
class Example:
    """A demonstration: its model, the endpoint it serves, how its source tables are built, and what is replayed.

    `build_sources(data_folder, progress)` writes the Parquet files that the feature views and example tables name;
    what it returns is printed. The replay asks every example with `replay_start <= as_of < replay_until`.
    """

    title: str
    model: ModelDefinition
    endpoint: str
    build_sources: Callable[[Path, Callable[[str], None]], object]
    replay_start: Micros
    replay_until: Micros
