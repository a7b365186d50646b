"""The gateway's own copy of the routing table, from which it starts while the registry is away."""

import json
import logging
from pathlib import Path

from skewless.errors import InvalidDefinition
from skewless.rollout.routes import RoutingTable

_LOGGER = logging.getLogger(__name__)
FILE = "routes.json"


class RoutesCopy:
    """One file in a folder that outlives the process. A copy that cannot be kept or read is logged, never fatal."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def save(self, table: RoutingTable) -> None:
        """Replace the copy in one step."""
        partial = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(table.to_json()))
            partial.replace(self._path)
        except OSError as error:
            _LOGGER.warning("the routes cannot be copied to %s: %s", self._path, error)

    def load(self) -> RoutingTable | None:
        """The table last saved; None where there is none or it is of another version."""
        try:
            return RoutingTable.from_json(json.loads(self._path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, InvalidDefinition) as error:
            _LOGGER.warning("the copy of the routes in %s cannot be read: %s", self._path, error)
            return None
