"""Makes the steps of stored transforms runnable: ONNX models from files beside the transform, allowed packages."""

from collections.abc import Collection, Mapping

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.transforms.operation import Settings
from skewless.transforms.step_operations import OnnxModelBytes, StepRun


class TransformSteps:
    """Implements `StepLoader`. `files` are the transform's files by SHA-256; `packages` may run their code here."""

    def __init__(self, files: Mapping[Digest, bytes], *, packages: Collection[str] = ()) -> None:
        self._files = files
        self._packages = frozenset(packages)

    def onnx(self, settings: Settings) -> OnnxModelBytes:
        """The model with the digest of the settings. Raises InvalidDefinition where it is not among the files."""
        data = self._files.get(Digest(settings["sha256"]))
        if data is None:
            raise InvalidDefinition(
                f"the transform has an `onnx` step whose file {settings['sha256']} is not with it",
                hint="a bundle keeps it beside the transform, named by its SHA-256",
            )
        # Imported where it is needed: a gateway whose transforms have no such step never loads ONNX Runtime.
        from skewless.adapters.onnx_steps import load_onnx_step

        return load_onnx_step(data, settings)

    def python(self, settings: Settings) -> StepRun:
        """The function that the settings pin. Raises InvalidDefinition unless it is allowed and what it was."""
        from skewless.adapters.python_steps import load_python_step

        return load_python_step(settings, allowed=self._packages)
