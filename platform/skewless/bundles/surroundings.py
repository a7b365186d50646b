"""What a process has to check bundles with: admission makes the checks for which it is given the means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import LoadSteps
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.serving_profile import Target
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.on_demand import Load
from skewless.serving.ports import ModelSignature
from skewless.transforms import FittedTransform
from skewless.transforms.executions import Execution

DIFFERENTIAL_ROWS = 256
"""Rows of the differential check where a bundle is registered or deployed."""
DIFFERENTIAL_ROWS_LOADING = 16
"""The same where a gateway loads it, between requests that wait for the processor: 0.1 s for 78 outputs."""

ModelRun = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""Runs a model: tensor (rows, columns) to its outputs by name, each (rows, columns) float32."""


@dataclass(frozen=True, slots=True)
class ModelTools:
    """What reads and runs models in this process, by format. A format that is not named is left to the model server."""

    signature: Mapping[ModelFormat, Callable[[ModelFiles, ModelSignature], ModelSignature]] = field(
        default_factory=dict
    )
    """Given a model and the signature it should have, the one that its files say. Raises BundleRefused."""
    run: Mapping[ModelFormat, Callable[[ModelFiles, ModelSignature], ModelRun]] = field(default_factory=dict)
    """A model ready to run. Raises BundleRefused for one that does not load."""
    target: Target = Target.EMBEDDED_CPU
    """Whose output tolerance holds here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a process has to check bundles with; what is None is skipped."""

    clock: Callable[[], int]
    """Nanoseconds that only grow."""
    steps: LoadSteps | None = None
    import_module: Load | None = None
    """Imports the modules of on-demand functions."""
    export: Callable[[FittedTransform], Execution] | None = None
    """The ONNX export of a transform, ready to run. Raises InvalidDefinition naming what cannot be exported."""
    model: ModelTools | None = None
    registered: Callable[[str], CompiledRegistry | None] | None = None
    """What is registered of a Feast project; None where there is no snapshot of it."""
    differential_rows: int = DIFFERENTIAL_ROWS
    differential_s: float = 5.0
    """About how long the differential check may take, however slow the transform."""
