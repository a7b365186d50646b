"""The prediction log as a place of a deletion: its shipper does the work, or this process where none runs."""

from collections.abc import Mapping
from functools import cached_property

from skewless.adapters.entity_deletion import Entity, predictions_of
from skewless.adapters.log_store import LogStore, open_log_store
from skewless.adapters.log_tables import PREDICTIONS
from skewless.adapters.shipper import DAMAGED
from skewless.adapters.shipper_requests import Work
from skewless.adapters.spool import SEALED, SPOOL
from skewless.cli.log_work import LogWork
from skewless.cli.workspace import Workspace
from skewless.errors import Unavailable
from skewless.features.chosen_entities import ChosenEntities
from skewless.limits import LOG_DELETION_WAIT_S
from skewless.serving.log_privacy import LogPrivacy
from skewless.settings import ShipperSettings, load_settings
from skewless.stack.shipper import log_hash_key
from skewless.timestamps import Micros

_KEY = "key."
_WORK_WAIT_S = 3_600.0


class LogPlace:
    """Predictions about the entities, of every endpoint that has these join keys, and their outcomes."""

    name = "prediction log"

    def __init__(self, workspace: Workspace, entities: ChosenEntities, before: Micros) -> None:
        self._workspace = workspace
        self._entities = entities
        self._before = before
        self._work = LogWork(workspace)

    @property
    def exists(self) -> bool:
        """Whether anything was ever logged here."""
        return self._workspace.home.predictions.is_dir()

    def look(self) -> dict[str, int]:
        """Predictions and outcomes by endpoint. What is sealed is shipped first, so that it is counted."""
        found: dict[str, int] = {}
        for endpoint in self._endpoints:
            told = self._work.done(
                Work.DELETE,
                endpoint=endpoint,
                keys=self._entities.keys,
                dry_run=True,
                before=self._before,
                wait_s=_WORK_WAIT_S,
            )
            found[endpoint] = told["predictions"] + told["outcomes"]
        return {endpoint: count for endpoint, count in found.items() if count}

    def erase(self) -> None:
        """Delete them. Raises Unavailable where segments of before wait; then the shipper deletes as soon as it can."""
        waiting = []
        for endpoint in self._endpoints:
            told = self._work.receipt(endpoint, self._entities.keys, wait_s=LOG_DELETION_WAIT_S, before=self._before)
            if told["pending"]:
                waiting.append(f"request {told['request']} of `{endpoint}`")
        if waiting:
            raise Unavailable(
                "the shipper",
                f"{', '.join(waiting)} waits for segments that are not shipped; it is done once they are",
                hint="`skewless log status` shows it; run this again then, and it is looked for once more",
            )

    def prediction_ids(self) -> frozenset[str]:
        """Ids of the predictions that the store has now; asked again once they are deleted, those of before."""
        if not self.exists:
            return frozenset()
        return self._ids

    @cached_property
    def _ids(self) -> frozenset[str]:
        store = self._store()
        key = load_settings(ShipperSettings, self._given()).log_hash_key
        privacy = LogPrivacy(key.get_secret_value().encode() if key is not None else b"")
        found: set[str] = set()
        for endpoint in self._endpoints:
            entity = Entity(endpoint, self._entities.keys, self._before, privacy)
            for ids in predictions_of(store, entity):
                found.update(ids.to_pylist())
        return frozenset(found)

    @property
    def damaged(self) -> int:
        """Segments that were set aside because they cannot be read."""
        return len(list((self._workspace.home.predictions / SPOOL / DAMAGED).glob(f"*{SEALED}")))

    @cached_property
    def _endpoints(self) -> tuple[str, ...]:
        """Endpoints whose predictions have these join keys."""
        if not self.exists:
            return ()
        self._work.done(Work.SHIP, wait_s=_WORK_WAIT_S)
        named: dict[str, set[str]] = {}
        for table in self._store().tables(PREDICTIONS):
            keys = {name.removeprefix(_KEY) for name in table.schema.names if name.startswith(_KEY)}
            named.setdefault(table.endpoint, set()).update(keys)
        return tuple(sorted(each for each, keys in named.items() if self._entities.are_told_by(keys)))

    def _store(self) -> LogStore:
        return open_log_store(self._workspace.settings.log_store_address)

    def _given(self) -> Mapping[str, str]:
        known = {name.lower(): value for name, value in log_hash_key().items()}
        return {"prediction_log": str(self._workspace.home.predictions), **known}
