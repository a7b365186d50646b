"""The gateway's own copy of the registry snapshots, from which it starts while the registry is away."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skewless.errors import InvalidDefinition
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless_http.local_copy import LocalCopy

FILE = "feature_snapshots.json"


class SnapshotsCopy:
    """One file in a folder that outlives the process. A copy that cannot be kept or read is logged, never fatal."""

    def __init__(self, folder: Path) -> None:
        self._copy = LocalCopy(folder / FILE, what="registry snapshots")

    def save(self, snapshots: Mapping[str, FeatureSnapshot]) -> None:
        """Replace the copy in one step."""
        self._copy.save([{"head": asdict(each.head), "document": each.document()} for each in snapshots.values()])

    def load(self) -> dict[str, FeatureSnapshot]:
        """The snapshots last saved, by project; none where there is no copy or it is of another version."""
        data: Any = self._copy.load()
        try:
            found = [FeatureSnapshot.of(SnapshotHead(**each["head"]), each["document"]) for each in data or ()]
        except (InvalidDefinition, KeyError, TypeError) as error:
            self._copy.refuse(error)
            return {}
        return {snapshot.head.project: snapshot for snapshot in found}
