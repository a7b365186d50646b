"""Recomputing one logged prediction from its own record."""

from dataclasses import dataclass
from typing import Any

from skewless.adapters.prediction_reader import find_prediction
from skewless.adapters.served_rows import bundle_of, served_rows
from skewless.cli.local_model import local_model
from skewless.cli.workspace import Workspace
from skewless.serving.records import tensor_digest
from skewless.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class ReplayCheck:
    """What a recomputation gave. Digests are of the tensor's float32 bytes."""

    prediction_id: str
    bundle: str
    as_of: str
    columns: int
    tensor_served: str
    tensor_recomputed: str
    output_served: list[float]
    output_recomputed: list[float]

    @property
    def equal(self) -> bool:
        """Whether tensor and output have the same bits as what was served."""
        return self.tensor_served == self.tensor_recomputed and self.output_served == self.output_recomputed

    def sentence(self) -> str:
        """The result for people."""
        verdict = "equal bit for bit" if self.equal else "DIFFERENT"
        return (
            f"prediction {self.prediction_id} of bundle {self.bundle[:12]} as of {self.as_of}: {verdict}\n"
            f"model input  {self.columns} columns, served {self.tensor_served[:16]}, "
            f"recomputed {self.tensor_recomputed[:16]}\n"
            f"model output served {self.output_served}, recomputed {self.output_recomputed}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prediction_id": self.prediction_id,
            "bundle": self.bundle,
            "as_of": self.as_of,
            "equal": self.equal,
            "tensor": {"served": self.tensor_served, "recomputed": self.tensor_recomputed},
            "output": {"served": self.output_served, "recomputed": self.output_recomputed},
        }


def check(workspace: Workspace, prediction_id: str) -> ReplayCheck:
    """Recompute a prediction of the workspace's log. Raises NotFound for one it does not have."""
    table = find_prediction(workspace.home.predictions, prediction_id)
    bundle = workspace.bundle(bundle_of(table))
    model = local_model(bundle)
    served = served_rows(table, bundle.contract, model.output_name)
    tensor = bundle.transform.prepare().apply({**served.given, **served.scored.frame.columns}, 1)
    return ReplayCheck(
        prediction_id=prediction_id,
        bundle=bundle.digest,
        as_of=format_timestamp(int(served.as_of[0])),
        columns=tensor.shape[1],
        tensor_served=tensor_digest(served.scored.tensor[0]),
        tensor_recomputed=tensor_digest(tensor[0]),
        output_served=served.scored.output[0].tolist(),
        output_recomputed=model.run(tensor)[0].tolist(),
    )
