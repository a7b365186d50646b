"""The gateway's own copy of the routing table, from which it starts while the registry is away."""

from pathlib import Path

from skewless.errors import InvalidDefinition
from skewless.rollout.routes import RoutingTable
from skewless_http.local_copy import LocalCopy

FILE = "routes.json"


class RoutesCopy:
    """One file in a folder that outlives the process. A copy that cannot be kept or read is logged, never fatal."""

    def __init__(self, folder: Path) -> None:
        self._copy = LocalCopy(folder / FILE, what="routes")

    def save(self, table: RoutingTable) -> None:
        """Replace the copy in one step."""
        self._copy.save(table.to_json())

    def load(self) -> RoutingTable | None:
        """The table last saved; None where there is none or it is of another version."""
        data = self._copy.load()
        try:
            return None if data is None else RoutingTable.from_json(data)
        except InvalidDefinition as error:
            self._copy.refuse(error)
            return None
