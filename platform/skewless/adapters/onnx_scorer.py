"""Runs a bundle's ONNX model in this process, all of its declared outputs, to compare them with the golden ones."""

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.model_on_disk import on_disk
from skewless.adapters.onnx_session import open_session
from skewless.bundles.admission import ModelRun
from skewless.bundles.model_files import ModelFiles
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

_HINT = "export it with operators that the locked version of ONNX Runtime knows"


def onnx_scorer(model: ModelFiles, signature: ModelSignature) -> ModelRun:
    """The model, ready to run as the embedded server runs it. Raises BundleRefused where it does not load or run."""
    names = [name for name, _ in signature.outputs]
    try:
        with on_disk(model) as path:
            session = open_session(path)
    except (OSError, ValueError) as error:
        raise BundleRefused(f"ONNX Runtime cannot load `{model.entry}`: {error}", hint=_HINT) from error

    def run(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            outputs = session.run(names, {signature.input_name: tensor})
        except Exception as error:  # its exceptions share no base class; nothing else runs in here
            raise BundleRefused(f"ONNX Runtime cannot run `{model.entry}`: {error}", hint=_HINT) from error
        return dict(zip(names, outputs, strict=True))

    return run
