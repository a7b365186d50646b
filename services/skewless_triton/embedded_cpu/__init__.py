"""The target of the embedded stack: ONNX Runtime inside the python backend, on a CPU."""
