"""Where the command line puts its parts together: settings, definitions, stores and the registry of one home."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.redis_url import connection_string_url
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import Bundle, LoadSteps, load_bundle
from skewless.canonical_json import Digest
from skewless.cli.arguments import actor
from skewless.errors import InvalidDefinition, NotFound, Unavailable
from skewless.features.contract import FeatureContract
from skewless.features.feature_checks import Finding
from skewless.registry.database import engine, upgrade
from skewless.registry.definitions import Definitions
from skewless.registry.feast_tables import FeastTables
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry, system_clock
from skewless.registry.snapshots import FeatureSnapshot, FeatureSnapshots
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.settings import Home, Settings, load_settings
from skewless.stack.feature_store_file import feast_address
from skewless.stack.state import StackState, read_state
from skewless.training.definition import ModelDefinition

if TYPE_CHECKING:
    # Importing these takes seconds (Feast) or pulls in training libraries; commands that need them pay, others do not.
    from skewless.adapters.duckdb_point_in_time import DuckDBOffline
    from skewless.adapters.feast_repository import Applied, FeatureRepository
    from skewless.adapters.log_reader import LogReader
    from skewless.parity.dry_run import DryRun
    from skewless.training.assembly import Training

Progress = Callable[[str], None]
_NOWHERE = "127.0.0.1:6379"
"""Feast wants an address even for work that never connects; definitions can be applied while the stack is down."""


class Closed(Protocol):
    """What is closed after use."""

    def close(self) -> None:
        """Give back connections."""
        ...


Part = TypeVar("Part", bound=Closed)


@dataclass(frozen=True)
class Workspace:
    """One home and one feature repository. Opening a part that is not there raises with what to run first."""

    settings: Settings = field(default_factory=lambda: load_settings(Settings))

    @property
    def home(self) -> Home:
        """The folder of everything kept."""
        return self.settings.folders

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The artifact store. Raises InvalidSettings where its address cannot be used."""
        return open_artifact_store(self.settings.artifacts_address, cache=self.home.artifact_cache)

    @contextmanager
    def registry(self, *, create: bool = False) -> Iterator[Registry]:
        """The registry. `create` makes or migrates the home's own database; a configured one is its operator's."""
        with self.kept(Registry, create=create) as registry:
            yield registry

    @contextmanager
    def snapshots(self, *, create: bool = False) -> Iterator[FeatureSnapshots]:
        """The registry snapshots, in the same database; `create` as for `registry`."""
        with self.kept(FeatureSnapshots, create=create) as snapshots:
            yield snapshots

    @contextmanager
    def kept(self, part: Callable[[Any], Part], *, create: bool = False) -> Iterator[Part]:
        """Any part of the registry database, closed on leaving; `create` as for `registry`."""
        if create and self.settings.database_url is None:
            upgrade(self.settings.registry_url)
        with closing(part(engine(self.settings.registry_url))) as opened:
            yield opened

    @contextmanager
    def log(self) -> Iterator["LogReader"]:
        """The prediction log, with the terms of outcomes that its endpoints have in the registry."""
        from skewless.adapters.log_reader import open_log

        with open_log(self.home.predictions, self.settings.log_store_address, terms=self.outcome_terms()) as log:
            yield log

    def outcome_terms(self) -> dict[str, OutcomeTerms]:
        """By endpoint; none where there is no registry database yet."""
        if self.settings.database_url is None and not self.home.database.exists():
            return {}
        with self.registry() as registry:
            return {each.name: each.terms for each in registry.endpoints()}

    @property
    def online_store_url(self) -> str:
        """`redis://…` as configured, or of the running stack. Raises Unavailable when there is neither."""
        configured = self.settings.online_store
        return connection_string_url(configured) if configured else self.stack().valkey_url

    @property
    def gateway_url(self) -> str:
        """Base URL of the running gateway. Raises Unavailable when the stack is down."""
        return self.stack().gateway_url

    def stack(self) -> StackState:
        """The running stack. Raises Unavailable when it is down."""
        state = read_state(self.home)
        if state is None:
            raise Unavailable("the stack", f"nothing runs in `{self.home.root}`", hint="start it with `skewless up`")
        return state

    def features(self, *, connected: bool = True) -> "FeatureRepository":
        """The Feast repository; `connected` needs the running stack's online store."""
        from skewless.adapters.feast_repository import Connections, FeatureRepository

        address = _NOWHERE
        if connected:
            # As Feast takes it, options and all.
            address = self.settings.online_store or self.stack().valkey_url.removeprefix("redis://")
        self.home.root.mkdir(parents=True, exist_ok=True)
        return FeatureRepository(self.settings.repo, Connections(address, self.settings.feast_registry_url))

    def definitions(self, module: str) -> ModuleType:
        """A module of the feature repository, such as `features` or `example`.

        Raises InvalidDefinition where the repository or the module does not exist or does not import.
        """
        folder = self.settings.repo.resolve()
        os.environ["SKEWLESS_DATA"] = str(self.settings.data_folder)
        if not (folder / "feature_store.yaml").is_file():
            raise InvalidDefinition(
                f"`{folder.name}` is no feature repository: it has no feature_store.yaml",
                hint="run in the folder that holds the repository, or set SKEWLESS_REPO",
            )
        if str(folder.parent) not in sys.path:
            sys.path.insert(0, str(folder.parent))
        try:
            return importlib.import_module(f"{folder.name}.{module}")
        except ImportError as error:
            raise InvalidDefinition(
                f"`{folder.name}/{module.replace('.', '/')}` cannot be imported: {error}",
                hint="every import of a feature repository must be installed or lie in the repository",
            ) from error

    @cached_property
    def models(self) -> dict[str, ModelDefinition]:
        """Every model defined in the repository's `models` package, by name."""
        package = self.definitions("models")
        found: dict[str, ModelDefinition] = {}
        for entry in pkgutil.iter_modules(package.__path__):
            for item in vars(self.definitions(f"models.{entry.name}")).values():
                if isinstance(item, ModelDefinition):
                    found[item.name] = item
        return found

    def model(self, name: str) -> ModelDefinition:
        """A model by name. Raises NotFound."""
        if name not in self.models:
            raise NotFound("model", name, known=tuple(sorted(self.models)))
        return self.models[name]

    def apply(self) -> "Applied":
        """Register the repository's definitions and put them in force: Feast's registry, the registry snapshot that
        gateways follow, and the version of the definitions.

        Raises InvalidDefinition where the definitions are refused, BundleRefused where they would break what an
        endpoint answers with, Unavailable where the registry database does not answer; then nothing is registered.
        """
        from skewless.cli import definition_apply

        definition_apply.finish_cut_off(self)
        prepared = definition_apply.prepare(self)
        definition_apply.refuse_unless_allowed(prepared.plan, allow_breaking=False)
        return definition_apply.apply_prepared(self, prepared, reason="apply")

    def compile_features(self, *, reason: str) -> FeatureSnapshot:
        """Store the registry snapshot of what is registered with Feast now.

        Raises as `apply`, and Conflict where definitions were applied while these were read.
        """
        from skewless.cli import definition_apply

        with self.kept(Definitions, create=True) as versions:
            versions.head()
            source = self._fingerprint()  # before Feast's slow import, in case there is nothing to compile
            repository = self.features(connected=False)
            source = source or definition_apply.fingerprint(self.settings, repository)
            head, compiled = definition_apply.compile_registered(versions, repository, source, reason=reason)
        return FeatureSnapshot(head, compiled.registry, tuple(compiled.findings))

    def registration_findings(self) -> list[Finding]:
        """What the registration checks find in what is registered with Feast now."""
        from skewless.cli import definition_apply

        return definition_apply.registered_findings(self.features(connected=False))

    def _fingerprint(self) -> Digest | None:
        """Of the definitions in Feast's registry; None where that cannot be looked at without Feast."""
        address = feast_address(self.settings)
        if address.sql_url is None:
            return None
        with closing(FeastTables(address.sql_url)) as feast:
            fingerprint = feast.fingerprint(address.project)
        if fingerprint is None:
            raise InvalidDefinition(
                f"project `{address.project}` has no registered definitions", hint="run `skewless apply` first"
            )
        return fingerprint

    def feature_snapshot(self) -> FeatureSnapshot:
        """The registry snapshot of the repository's project. Raises NotFound where there is none."""
        with self.snapshots() as snapshots:
            return snapshots.newest(feast_address(self.settings).project)

    def contract(self, definition: ModelDefinition) -> FeatureContract:
        """The feature contract of a model against the registered definitions."""
        return self.features(connected=False).contract(
            definition.feature_service,
            request_fields=definition.request_fields,
            nullable_keys=definition.nullable_keys,
            policies=definition.policies,
        )

    def offline(self, definition: ModelDefinition) -> "DuckDBOffline":
        """The offline store as the model's examples and features lie in it."""
        from skewless.adapters.duckdb_point_in_time import DuckDBOffline

        return DuckDBOffline(
            self.settings.data_folder, self.features(connected=False).sources(definition.feature_service)
        )

    def train(self, definition: ModelDefinition, progress: Progress) -> "Training":
        """Train a model, keep its bundle in the artifact store, register it, and record its data sets and metrics."""
        from skewless.cli.training_run import run_training

        return run_training(self, definition, progress)

    def register(self, folder: Path, check_parity: Callable[[Bundle], "DryRun"] | None = None) -> Bundle:
        """Admit a bundle folder, keep it in the artifact store and record it. Raises BundleRefused.

        `check_parity` gives it a dry parity run before; None: it gets one when it is to answer.
        """
        from skewless.cli.bundle_admission import admission_of

        admission = admission_of(self, folder)
        bundle = admission.require()
        detail: dict[str, Any] = {"checks": admission.results}
        with self.registry(create=True) as registry:  # also before the dry run, which looks into it
            if check_parity is not None:
                verdict = check_parity(bundle)
                verdict.require(bundle.digest)
                detail["parity"] = verdict.to_json()
            location = self.artifacts.put(folder, bundle.digest)
            registry.register_bundle(
                BundleRecord.of(bundle, artifact=location, created_time=system_clock()), actor=actor(), detail=detail
            )
        return bundle

    def bundle(self, digest_prefix: str) -> Bundle:
        """A registered bundle, loaded and verified."""
        with self.registry() as registry:
            digest = registry.bundle(digest_prefix).digest
        return load_bundle(self.artifacts.open(digest), digest, steps=self.steps)

    @property
    def steps(self) -> LoadSteps:
        """What makes the `onnx` and `python` steps of stored transforms runnable here."""
        return partial(TransformSteps, packages=self.settings.allowed_step_packages)
