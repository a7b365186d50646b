"""A file of the gateway's own with what it last read from the registry, to start from while the registry is away."""

import json
import logging
import os
from pathlib import Path

_LOGGER = logging.getLogger(__name__)


class LocalCopy:
    """One JSON file that outlives the process. A copy that cannot be kept or read is logged, never fatal."""

    def __init__(self, path: Path, *, what: str) -> None:
        self._path = path
        self._what = what

    def save(self, data: object) -> None:
        """Replace the copy in one step."""
        # Workers share the folder, and one must not rename what another is half way through.
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(data))
            partial.replace(self._path)
        except OSError as error:
            _LOGGER.warning("the %s cannot be copied to %s: %s", self._what, self._path, error)

    def load(self) -> object:
        """What was saved last; None where there is none or it is no JSON."""
        try:
            found: object = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.refuse(error)
            return None
        return found

    def refuse(self, error: Exception) -> None:
        """Log that what the copy holds cannot be used."""
        _LOGGER.warning("the copy of the %s in %s cannot be read: %s", self._what, self._path, error)
