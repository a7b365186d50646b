"""A model's files in a folder of their own for a moment, for libraries that read files and no bytes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skewless.bundles.model_files import ModelFiles


@contextmanager
def on_disk(model: ModelFiles) -> Iterator[str]:
    """The path of the model's entry, with all its files beside it; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        for path, data in model.files.items():
            target = Path(folder) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield str(Path(folder) / model.entry)
