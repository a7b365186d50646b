"""A bundle's model, run in this process: to recompute what was served."""

from skewless.adapters.onnx_runtime import OnnxModel
from skewless.bundles.bundle import Bundle
from skewless.bundles.model_files import ModelFormat
from skewless.errors import InvalidDefinition


def local_model(bundle: Bundle) -> OnnxModel:
    """The model of a bundle, read and verified again. Raises InvalidDefinition for one that commands cannot run."""
    if bundle.model.format is not ModelFormat.ONNX:
        raise InvalidDefinition(
            f"the model of bundle {bundle.digest[:12]} is of format {bundle.model.format}; commands run ONNX only",
            hint="ask the model server that serves the bundle",
        )
    model = bundle.read_model()
    return OnnxModel(model.files[model.entry])
