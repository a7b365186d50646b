"""The one place that talks to Feast: definitions, registry, materialization and writes in Feast's own layout.

Importing Feast takes seconds and changes the environment, so only command-line jobs import this module.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import yaml

from skewless.adapters.definition_registration import Proposal, Registration, compiled_registry
from skewless.adapters.feast_contract import compile_contract, pinned_version, stored_read, used_views
from skewless.adapters.feast_definitions import Registered
from skewless.adapters.feast_import import (
    DUMMY_ENTITY_FIELD,
    DUMMY_ENTITY_ID,
    DUMMY_ENTITY_VAL,
    DeltaFormat,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    FileSource,
    OnDemandFeatureView,
    RepoConfig,
    convert_arrow_to_proto,
    make_tzaware,
    quiet,
)
from skewless.adapters.feast_stored_views import StoredProject, stored_project
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract, Policy, RequestField, ViewRead
from skewless.features.feature_checks import Finding, Severity, ViewDefinition
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.timestamps import from_micros, to_micros


@dataclass(frozen=True, slots=True)
class Connections:
    """Addresses that a repository's `feature_store.yaml` may name as `${SKEWLESS_…}`."""

    online_store: str
    """`host:port` of Redis or Valkey."""
    registry: str
    """SQLAlchemy URL of Feast's SQL registry."""

    def variables(self) -> dict[str, str]:
        """Values of the variables, by name."""
        return {
            "SKEWLESS_ONLINE_STORE": self.online_store,
            "SKEWLESS_FEAST_REGISTRY": self.registry,
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` put into the registry, by name."""

    entities: tuple[str, ...]
    feature_views: tuple[str, ...]
    feature_services: tuple[str, ...]
    on_demand_feature_views: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()
    """What is allowed but will hurt."""


@dataclass(frozen=True, slots=True)
class JudgedSource:
    """The path of a view's source, and the file of those of its rows that a gate lets pass."""

    source_path: str
    rows: Path


class FeatureRepository:
    """A Feast repository: the folder with `feature_store.yaml`, and the store it describes."""

    def __init__(self, folder: Path, connections: Connections) -> None:
        """Reads the configuration; nothing connects yet. Raises InvalidDefinition where it is missing or wrong."""
        self._config = _load_config(folder, connections)
        self._store = FeatureStore(config=self._config)

    @property
    def project(self) -> str:
        """Feast's project, which ends every Redis key."""
        return str(self._config.project)

    @property
    def registration(self) -> Registration:
        """What looks at definitions before they are registered, and registers them."""
        return Registration(self._store)

    def apply(self, definitions: ModuleType) -> Applied:
        """Register every Feast object of a module, all or none. Adds and updates; removes nothing.

        Raises InvalidDefinition, and registers nothing, for what Feast refuses, for errors that the checks of
        definitions find, and for on-demand functions that no server could run.
        """
        proposal = self.registration.propose(definitions)
        _refuse_errors(proposal.findings)
        self.registration.register(proposal)
        return applied(proposal)

    def projects(self) -> tuple[str, ...]:
        """Every project of the registry, this one included; they may share a Redis."""
        return self.registration.projects()

    def definitions(self) -> list[ViewDefinition]:
        """Every registered view as plain data, for `check_definitions`."""
        return Registered.read(self._store).definitions()

    def compiled(self) -> CompiledRegistry:
        """Every registered feature service with its contract, or with why it has none."""
        return compiled_registry(Registered.read(self._store))

    def contract(
        self,
        feature_service: str,
        *,
        request_fields: tuple[RequestField, ...] = (),
        nullable_keys: frozenset[str] = frozenset(),
        policies: Mapping[str, tuple[Policy, Policy]] | None = None,
    ) -> FeatureContract:
        """The contract of a registered feature service, in the service's order.

        Features that only on-demand views read come behind the service's own. Request sources add their fields
        behind `request_fields`. Raises NotFound for an unknown service, InvalidDefinition for what cannot be read
        online or for a policy or nullable key that names nothing.
        """
        return compile_contract(
            Registered.read(self._store),
            feature_service,
            request_fields=request_fields,
            nullable_keys=nullable_keys,
            policies=policies,
        )

    def sources(self, feature_service: str) -> dict[str, OfflineSource]:
        """Where the offline rows of each stored view of a service lie, by the name the view is used under."""
        uses, _ = used_views(Registered.read(self._store), feature_service)
        return {name: _offline_source(use.view, name) for name, use in uses.items()}

    def materialized(self, feature_service: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """The (start, end) in µs of each materialization of a service's stored views, by the name a view is used under.

        Feast keeps a run once it is finished; of pushes it keeps nothing.
        """
        uses, _ = used_views(Registered.read(self._store), feature_service)
        return {
            name: tuple((to_micros(start), to_micros(end)) for start, end in use.view.materialization_intervals)
            for name, use in uses.items()
        }

    def materialize(
        self, as_of: int, progress: Callable[[str], None], judged: Mapping[str, JudgedSource] | None = None
    ) -> tuple[str, ...]:
        """Write all views by Feast's own engine, as `materialize_view`; returns their names in the store."""
        due = self._to_materialize()
        for number, name in enumerate(due, start=1):
            progress(f"{number}/{len(due)} {name}")
            self.materialize_view(name, as_of, (judged or {}).get(name))
        return tuple(due)

    def materialize_view(self, stored_name: str, as_of: int, judged: JudgedSource | None = None) -> None:
        """Have Feast's engine write the newest visible row of every entity of a view at `as_of` (µs).

        The whole history is searched, so that an entity that is stale is reported as stale and not as missing. Of a
        view that is `judged` only what passed is read. Raises Unavailable when the online store is away.
        """
        view, version = self._to_materialize()[stored_name]
        with quiet(), _translated(), _read_instead(judged):
            self._store.materialize(
                start_date=from_micros(0), end_date=from_micros(as_of), feature_views=[view], version=version
            )

    def record_materialization(self, stored_name: str, as_of: int) -> None:
        """Keep in Feast's registry that all rows of a view visible at `as_of` (µs) were written, as Feast itself does.

        A run that is kept already, because it was cut off right after, is kept once.
        """
        view, _ = self._to_materialize()[stored_name]
        registry, span = self._store.registry, (from_micros(0), from_micros(as_of))
        registered = registry.get_feature_view(view, self.project)
        if span not in [
            (make_tzaware(start), make_tzaware(end)) for start, end in registered.materialization_intervals
        ]:
            registry.apply_materialization(registered, self.project, *span)

    def stored(self) -> StoredProject:
        """All that the project keeps in the online store, to be compared with its sources."""
        lifetime_s = getattr(self._config.online_store, "key_ttl_seconds", None) or 0
        return stored_project(Registered.read(self._store), _offline_source, lifetime_s=int(lifetime_s))

    def stored_view(self, view: ViewRead) -> ViewRead:
        """All that the store keeps of the view that a contract reads: every feature, under the view's own keys."""
        return stored_read(Registered.read(self._store), view)

    def writer(self, view_name: str, version: int | None = None) -> Callable[[pa.RecordBatch], None]:
        """A function that writes rows of one view: join keys, features, and the source's time columns.

        A stored row with a later event time is kept; of rows with the same event time the one written last stays,
        so give corrections in the order in which they became known. The function raises Unavailable when the online
        store is away; writing the same rows again is harmless. One writer per view at a time.
        """
        view = Registered.read(self._store).view(view_name, version)
        entities = view.entity_columns or [DUMMY_ENTITY_FIELD]
        join_keys = {column.name: column.dtype.to_value_type() for column in entities}
        provider = self._store._get_provider()  # noqa: SLF001  # Feast's write path without its per-call registry look-ups
        # Feast's own comparison also drops a correction, whose event time equals the stored one; ours replaces it.
        unconditional = self._config.model_copy(deep=True)
        unconditional.online_store.skip_dedup = True
        some_feature = [view.features[0].name]

        def write(rows: pa.RecordBatch) -> None:
            protos = convert_arrow_to_proto(_with_entity(rows, join_keys), view, join_keys)
            with _translated():
                stored = provider.online_read(self._config, view, [row[0] for row in protos], some_feature)
                winners = _not_older(protos, [event_time for event_time, _ in stored])
                if winners:
                    provider.online_write_batch(unconditional, view, winners, progress=None)

        return write

    def online_features(
        self, feature_service: str, entity_rows: list[dict[str, Any]], *, full_feature_names: bool = True
    ) -> dict[str, list[Any]]:
        """What Feast's own SDK reads, by feature name; used to show that both readers agree."""
        with quiet(), _translated():
            service = self._store.get_feature_service(feature_service)
            answer = self._store.get_online_features(service, entity_rows, full_feature_names=full_feature_names)
        values: dict[str, list[Any]] = answer.to_dict()
        return values

    def _to_materialize(self) -> dict[str, tuple[str, str | None]]:
        """By name in the store: view, and version to load or None for the current one, of all that is kept online."""
        registered = Registered.read(self._store)
        if not registered.views:
            raise InvalidDefinition(
                f"project `{self.project}` has no registered feature view", hint="run `skewless apply` first"
            )
        current = [view for view in registered.views.values() if view.online and view.enabled and view.batch_source]
        due: dict[str, tuple[str, str | None]] = {
            registered.stored_name(view, view.projection): (view.name, None) for view in current
        }
        for service in registered.services:
            with contextlib.suppress(InvalidDefinition):  # a service that cannot be read needs nothing written
                for name, use in used_views(registered, service)[0].items():
                    version = pinned_version(name)
                    if version is not None:
                        stored = registered.stored_name(use.view, use.projection)
                        due.setdefault(stored, (use.view.name, f"v{version}"))
        return dict(sorted(due.items()))


@contextlib.contextmanager
def _read_instead(judged: JudgedSource | None) -> Iterator[None]:
    """Have Feast read what passed in place of its source while the block runs; None leaves it to the source."""
    if judged is None:
        yield
        return
    from skewless.adapters.feast_offline_store import judged_rows  # loads ibis, which only materializing needs

    with judged_rows(judged.source_path, judged.rows):
        yield


def applied(proposal: Proposal) -> Applied:
    """What a proposal puts into the registry, by name."""
    found = list(proposal.objects)
    return Applied(
        entities=_names(found, Entity),
        feature_views=_names(found, FeatureView),
        feature_services=_names(found, FeatureService),
        on_demand_feature_views=_names(found, OnDemandFeatureView),
        warnings=proposal.findings,
    )


def _refuse_errors(findings: Sequence[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        told = "; ".join(finding.message for finding in errors)
        raise InvalidDefinition(f"the definitions are refused: {told}", hint=errors[0].hint)


def _load_config(folder: Path, connections: Connections) -> RepoConfig:
    path = folder / "feature_store.yaml"
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidDefinition(
            f"`{path}` cannot be read: {error.strerror}", hint="set SKEWLESS_REPO to the folder of a Feast repository"
        ) from error
    for name, value in connections.variables().items():
        text = text.replace(f"${{{name}}}", value)
    try:
        return RepoConfig(**yaml.safe_load(text), repo_path=folder.resolve())
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise InvalidDefinition(f"`{path}` is not a Feast configuration: {error}") from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from redis.exceptions import RedisError  # Feast's online store lets the client's errors through

    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable("online store", str(error), hint="run `skewless doctor`") from error


def _with_entity(rows: pa.RecordBatch, join_keys: Mapping[str, Any]) -> pa.RecordBatch:
    """The rows with Feast's placeholder key where the view has no entity."""
    if DUMMY_ENTITY_ID not in join_keys:
        return rows
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * rows.num_rows, pa.string()))


def _not_older(rows: list[Any], stored: list[Any]) -> list[Any]:
    """Rows (key, values, event time, created time) that are at least as new as what is stored and written before."""
    newest: dict[bytes, Any] = {}
    kept = []
    for row, stored_time in zip(rows, stored, strict=True):
        key, event_time = row[0].SerializeToString(), make_tzaware(row[2])
        known = newest.get(key, stored_time)
        if known is None or event_time >= known:
            newest[key] = event_time
            kept.append(row)
    return kept


def _names(items: list[Any], kind: Any) -> tuple[str, ...]:
    return tuple(sorted(str(item.name) for item in items if isinstance(item, kind)))


def _offline_source(view: Any, name: str) -> OfflineSource:
    """Where the rows of a view that is used under `name` lie; of a push or stream view those of its batch source."""
    source = view.batch_source
    if not isinstance(source, FileSource):
        raise InvalidDefinition(
            f"feature view `{view.name}` has a {type(source).__name__}; training reads file sources only yet",
            hint="give it a FileSource over Parquet or a Delta table",
        )
    renamed = {new: old for old, new in source.field_mapping.items()}
    return OfflineSource(
        view=name,
        path=source.path,
        event_time=source.timestamp_field,
        created_time=source.created_timestamp_column or None,
        columns=tuple(sorted(renamed.items())),
        form=SourceForm.DELTA if isinstance(source.file_format, DeltaFormat) else SourceForm.PARQUET,
    )
