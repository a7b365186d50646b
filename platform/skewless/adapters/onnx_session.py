"""ONNX Runtime as everything in this process uses it; its only importer outside of Triton.

A session computes on the calling thread alone, so that a row's result cannot depend on how a batch is divided among
threads.
"""

from typing import Any

import onnxruntime

_ERRORS_ONLY = 3


def open_session(model: bytes | str, *, deterministic: bool = False) -> Any:
    """A session of a model, from its bytes or the path of its file. Raises ValueError, saying why it does not load.

    `deterministic` asks operators that have a faster way which is not for the other one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = deterministic
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class; nothing else runs in here
        raise ValueError(str(error)) from error
