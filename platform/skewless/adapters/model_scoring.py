"""Runs a trained model in the training process, from its files, as a server will."""

from skewless.adapters.onnx_runtime import OnnxModel
from skewless.bundles.model_files import ModelFormat
from skewless.errors import InvalidDefinition
from skewless.training.learner import Scorer, TrainedModel


def run_model(model: TrainedModel) -> Scorer:
    """What runs a model: ONNX Runtime for ONNX; for other formats what the training function gave as `score`.

    Raises InvalidDefinition where there is neither, or where the file's tensors are not those of the signature.
    """
    if model.files.format is not ModelFormat.ONNX:
        if model.score is None:
            raise InvalidDefinition(
                f"a model of format `{model.files.format}` cannot be run from its files while it is trained",
                hint="give the TrainedModel a `score`, which runs it with its own library",
            )
        return model.score
    onnx = OnnxModel(model.files.files[model.files.entry])
    found = (onnx.input_name, onnx.input_columns, ((onnx.output_name, onnx.output_columns),))
    stated = (model.signature.input_name, model.signature.input_columns, model.signature.outputs)
    if found != stated:
        raise InvalidDefinition(f"the ONNX model has the tensors {found}, its signature says {stated}")
    return onnx.run
