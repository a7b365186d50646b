"""Training as commands and the demo run it: parts put together, bundle registered, data sets and metrics recorded."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skewless.canonical_json import Digest
from skewless.cli.arguments import actor
from skewless.cli.workspace import Progress, Workspace
from skewless.registry.records import DatasetRecord, EvaluationRecord
from skewless.registry.repository import Registry, system_clock
from skewless.training.assembly import Training
from skewless.training.dataset import Dataset
from skewless.training.definition import ModelDefinition
from skewless.training.holdout import HoldoutEvaluation


def run_training(workspace: Workspace, definition: ModelDefinition, progress: Progress) -> Training:
    """Train a model, keep its bundle in the artifact store, register it, and record its data sets and metrics."""
    from skewless.adapters.code_revision import code_revision
    from skewless.adapters.declared_learners import learner_of
    from skewless.adapters.model_scoring import run_model
    from skewless.training.train import TrainingParts, train

    parts = TrainingParts(
        offline=workspace.offline(definition),
        fit=learner_of(definition),
        run_model=run_model,
        code=code_revision(workspace.settings.repo),
    )
    with bundle_folder(workspace) as folder:
        training = train(definition, workspace.contract(definition), parts, folder, progress)
        progress("verifying and registering the bundle")
        workspace.register(folder)
    record(workspace, training)
    return training


@contextmanager
def bundle_folder(workspace: Workspace) -> Iterator[Path]:
    """A folder for a bundle that is being made, gone when the block ends."""
    workspace.home.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.home.root, prefix="bundle-") as folder:
        yield Path(folder)


def record(workspace: Workspace, training: Training) -> None:
    """Keep in the registry what a bundle was taught and judged by, and how well it did."""
    with workspace.registry(create=True) as registry:
        registry.add_dataset(_dataset_record(training.dataset), actor=actor(), reason="training")
        record_evaluation(registry, training.digest, training.judgement.dataset, training.evaluation)


def record_evaluation(registry: Registry, bundle: Digest, dataset: Dataset, evaluation: HoldoutEvaluation) -> None:
    """Keep a bundle's metrics on a hold-out, in place of earlier ones on the same."""
    registry.add_dataset(_dataset_record(dataset), actor=actor(), reason="evaluation")
    found = evaluation.to_json()
    registry.add_evaluation(
        EvaluationRecord(bundle, dataset.digest, found["metrics"], found["slices"], system_clock()), actor=actor()
    )


def _dataset_record(dataset: Dataset) -> DatasetRecord:
    return DatasetRecord(
        digest=dataset.digest,
        name=dataset.name,
        rows=dataset.rows,
        start=dataset.period.start,
        end=dataset.period.end,
        query=dataset.source,
        created_time=system_clock(),
    )
