"""The steps of a graph that lie outside of the catalogue: the files they need, and a loader of what is bound."""

from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Settings
from skewless.transforms.step_operations import OnnxModelBytes, OnnxStep, PythonStep, Step, StepRun


def files_of(graph: Graph) -> dict[Digest, bytes]:
    """The files that the graph's `onnx` steps run, by their SHA-256; a bundle keeps them beside the transform.

    A step that is not bound has none to give, so it is left out.
    """
    return {
        Digest(node.settings["sha256"]): node.operation.model.data
        for node in graph.nodes
        if isinstance(node.operation, OnnxStep) and node.operation.model is not None
    }


class StepsOfGraph:
    """Implements `StepLoader` for copies of a graph, from the steps that are bound in it."""

    def __init__(self, graph: Graph) -> None:
        self._steps: dict[Digest, Step] = {
            digest(dict(node.settings)): node.operation for node in graph.nodes if isinstance(node.operation, Step)
        }

    def onnx(self, settings: Settings) -> OnnxModelBytes:
        """The model bound to the same settings. Raises InvalidDefinition where there is none."""
        step = self._steps.get(digest(dict(settings)))
        if not isinstance(step, OnnxStep) or step.model is None:
            raise _unknown(settings["sha256"])
        return step.model

    def python(self, settings: Settings) -> StepRun:
        """The function bound to the same settings. Raises InvalidDefinition where there is none."""
        step = self._steps.get(digest(dict(settings)))
        if not isinstance(step, PythonStep) or step.run is None:
            raise _unknown(settings["source_sha256"])
        return step.run


def _unknown(step: str) -> InvalidDefinition:
    return InvalidDefinition(f"the step {step[:12]} is not bound in the graph that this one was to be a copy of")
