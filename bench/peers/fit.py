"""`python -m bench.peers.fit`: fit the transform in a peer's environment, with the scikit-learn that it will serve."""

import json
import os
from pathlib import Path

import joblib  # type: ignore[import-untyped]  # it ships no types
import pandas as pd

from bench.textbook.transform import Groups, make_transform, typed


def main() -> None:
    """Read rows.parquet and groups.json of the folder, write pipeline.joblib."""
    folder = Path(os.environ["PEER_ARTIFACTS"])
    stored = json.loads((folder / "groups.json").read_text())
    groups = Groups(**{name: tuple(columns) for name, columns in stored.items()})
    transform = make_transform(groups).fit(typed(pd.read_parquet(folder / "rows.parquet"), groups))
    joblib.dump((groups, transform), folder / "pipeline.joblib")


if __name__ == "__main__":
    main()
