"""What an earlier `skewless demo` of this home already did, so that the next one need not do it again."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from skewless.canonical_json import Digest, digest, digest_bytes
from skewless.features.contract import FeatureContract
from skewless.simulation.replay import Replay
from skewless.timestamps import Micros
from skewless.training.definition import ModelDefinition
from skewless.training.gates import gate_json

FILE = "demo.json"


@dataclass(slots=True)
class ReplayRecord:
    """A finished replay; see `simulation.replay.Replay`. `work` says of what, `started` when by the wall clock (µs)."""

    work: Digest
    started: Micros
    prediction_ids: list[str]
    latency_s: list[float]
    outcomes: int
    feature_rows: int
    refusals: int
    wall_s: float


@dataclass(slots=True)
class DemoState:
    """Digests of the work that is done; empty where it is not."""

    sources: str = ""
    training: str = ""
    bundle: str = ""
    replay: ReplayRecord | None = None
    path: Path = field(default=Path(FILE))

    def save(self) -> None:
        """Write the state, atomically."""
        temporary = self.path.with_suffix(".tmp")
        content = {
            "sources": self.sources,
            "training": self.training,
            "bundle": self.bundle,
            "replay": self.replay,
        }
        temporary.write_bytes(msgspec.json.encode(content))
        temporary.replace(self.path)


def load_state(home: Path) -> DemoState:
    """The state of a home; a new one where there is none or it cannot be read, which only costs doing work again."""
    path = home / FILE
    try:
        content = msgspec.json.decode(path.read_bytes())
        record = content["replay"]
        return DemoState(
            sources=content["sources"],
            training=content["training"],
            bundle=content["bundle"],
            replay=None if record is None else msgspec.convert(record, ReplayRecord),
            path=path,
        )
    except (OSError, KeyError, TypeError, msgspec.MsgspecError):
        return DemoState(path=path)


def record_of(replay: Replay, work: Digest, started: Micros) -> ReplayRecord:
    """A replay as it is kept."""
    return ReplayRecord(
        work=work,
        started=started,
        prediction_ids=list(replay.prediction_ids),
        latency_s=np.round(replay.latency_s, 7).tolist(),
        outcomes=replay.outcomes,
        feature_rows=replay.feature_rows,
        refusals=replay.refusals,
        wall_s=replay.wall_s,
    )


def sources_work(repository: Path) -> Digest:
    """Digest of every module of a repository that may shape its source tables: all but its models."""
    files = sorted(path for path in repository.rglob("*.py") if "models" not in path.relative_to(repository).parts)
    return digest({str(path.relative_to(repository)): digest_bytes(path.read_bytes()) for path in files})


def training_work(sources: str, definition: ModelDefinition, contract: FeatureContract) -> Digest:
    """Digest of everything that shapes a bundle, apart from library versions."""
    return digest(
        {
            "sources": sources,
            "contract": contract.digest,
            "transform": definition.transform.digest,
            "definition": [
                msgspec.to_builtins([definition.examples, definition.training, definition.holdout, definition.labels]),
                definition.learner_record(),
                [gate_json(each) for each in definition.gates],
                msgspec.to_builtins([definition.slices, definition.weights, definition.calibration, definition.seed]),
                definition.serving.to_json(),
            ],
        }
    )


def replay_work(bundle: str, endpoint: str, start: Micros, until: Micros) -> Digest:
    """Digest of what a replay asks, and of whom."""
    return digest({"bundle": bundle, "endpoint": endpoint, "start": start, "until": until})
