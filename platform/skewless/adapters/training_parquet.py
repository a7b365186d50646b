"""Training sets at rest: Parquet with a row per example."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import column_to_arrow
from skewless.features.frame import FeatureFrame
from skewless.training.examples import Examples


def write_training_set(examples: Examples, frame: FeatureFrame, path: Path) -> None:
    """Write examples with their features as Parquet: keys, request fields, `view__feature`, `as_of`, `label`."""
    columns = {name: column_to_arrow(column) for name, column in {**examples.keys, **frame.columns}.items()}
    columns["as_of"] = pa.array(examples.as_of).cast(pa.timestamp("us", tz="UTC"))
    columns["label"] = pa.array(examples.labels, mask=~examples.labelled)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
