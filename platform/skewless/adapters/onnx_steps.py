"""ONNX models as steps of a transform, run in this process with ONNX Runtime.

::

    risk = onnx_step(Path("risk.onnx"), {"numbers": [age, income], "city": city}, outputs=("low", "high"))
    Transform({"risk": risk})                       # outputs risk[low] and risk[high]

The model's file is identified by its SHA-256 and lies beside the
transform; the version of ONNX Runtime is not part of a transform's digest, so that golden vectors are what tells that
another version computes something else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.onnx_session import open_session
from skewless.canonical_json import digest_bytes
from skewless.errors import InvalidDefinition
from skewless.transforms.expressions import Expression, declare
from skewless.transforms.step_operations import OnnxInput, OnnxModelBytes, OnnxStep, StepRun

_ELEMENTS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "string"}
_OUTPUTS = frozenset({"tensor(float)", "tensor(double)", "tensor(int64)", "tensor(int32)", "tensor(bool)"})
_HINT = "convert it with inputs of float, double or string, shape [None, columns], and zipmap switched off"


def onnx_step(
    model: bytes | Path,
    inputs: Mapping[str, Expression | Sequence[Expression]],
    *,
    output: str | None = None,
    outputs: Sequence[str] | None = None,
    rows_together: bool = False,
) -> Expression:
    """An expression of the model's output: a number where it has one column, else several named by `outputs`.

    `inputs` gives each input of the model its columns, in order. `output` may be left out for a model with one.
    `outputs` default to "0", "1" and so on. Rows are run one by one, unless `rows_together` says that this model
    gives a row the same bits in any batch, which fitting then checks. A row with a null in any operand is not run,
    and is null. Raises InvalidDefinition for a model that does not load or does not fit its operands.
    """
    data = model.read_bytes() if isinstance(model, Path) else model
    session = _session(data)
    operands = {name: _columns(given) for name, given in inputs.items()}
    declared = [_declared_input(each, operands) for each in session.get_inputs()]
    unknown = sorted(operands.keys() - {each.name for each in declared})
    if unknown:
        raise InvalidDefinition(
            f"the model has no input `{unknown[0]}`; it has {', '.join(f'`{each.name}`' for each in declared)}"
        )
    chosen = _output(session, output)
    names = _output_names(chosen, outputs)
    return declare(
        OnnxStep(OnnxModelBytes(data, _run(session, declared, chosen.name, 1 if names is None else len(names)))),
        *(operand for each in declared for operand in operands[each.name]),
        sha256=digest_bytes(data),
        inputs=[list(each) for each in declared],
        output=chosen.name,
        outputs=names,
        rows_together=rows_together,
    )


def load_onnx_step(data: bytes, settings: Mapping[str, Any]) -> OnnxModelBytes:
    """The model of a stored step, ready to run. Raises InvalidDefinition for bytes of another digest or signature."""
    found = digest_bytes(data)
    if found != settings["sha256"]:
        raise InvalidDefinition(
            f"the file of an `onnx` step has the digest {found}; the transform names {settings['sha256']}",
            hint="take the file that was stored with the transform",
        )
    declared = [OnnxInput(*each) for each in settings["inputs"]]
    outputs = settings["outputs"]
    session = _session(data)
    names = [each.name for each in session.get_inputs()]
    if names != [each.name for each in declared]:
        raise InvalidDefinition(f"the `onnx` step {found[:12]} has inputs {names}, its transform names others")
    return OnnxModelBytes(data, _run(session, declared, settings["output"], 1 if outputs is None else len(outputs)))


def _session(data: bytes) -> Any:
    try:
        return open_session(data, deterministic=True)
    except ValueError as error:
        raise InvalidDefinition(f"ONNX Runtime cannot load the model of an `onnx` step: {error}") from error


def _columns(given: Expression | Sequence[Expression]) -> tuple[Expression, ...]:
    return (given,) if isinstance(given, Expression) else tuple(given)


def _declared_input(found: Any, operands: Mapping[str, Sequence[Expression]]) -> OnnxInput:
    """A model's input with the columns that it is given."""
    given = operands.get(found.name, ())
    columns = found.shape[1] if len(found.shape) == 2 else None
    if found.type not in _ELEMENTS or len(found.shape) != 2:
        raise InvalidDefinition(f"the model's input `{found.name}` is {found.type} of shape {found.shape}", hint=_HINT)
    if not given or (isinstance(columns, int) and columns != len(given)):
        raise InvalidDefinition(
            f"the model's input `{found.name}` takes {columns or 'some'} columns, it is given {len(given)}"
        )
    return OnnxInput(found.name, _ELEMENTS[found.type], len(given))


def _output(session: Any, name: str | None) -> Any:
    found = session.get_outputs()
    listed = ", ".join(f"`{each.name}` {each.type} {each.shape}" for each in found)
    chosen = [each for each in found if name is None or each.name == name]
    if len(chosen) != 1:
        raise InvalidDefinition(f"an `onnx` step takes one output of its model; it has {listed}", hint="give output=…")
    if chosen[0].type not in _OUTPUTS or len(chosen[0].shape) not in (1, 2):
        raise InvalidDefinition(f"the model's output must be numbers, one row each; it has {listed}", hint=_HINT)
    return chosen[0]


def _output_names(chosen: Any, names: Sequence[str] | None) -> list[str] | None:
    columns = chosen.shape[1] if len(chosen.shape) == 2 else 1
    if names is None and isinstance(columns, int):
        return None if columns == 1 else [str(place) for place in range(columns)]
    if names is None or (isinstance(columns, int) and columns != len(names)):
        raise InvalidDefinition(
            f"the model's output `{chosen.name}` has {columns} columns, and {len(names or ())} names are given",
            hint="give outputs=(…), a name for each column",
        )
    return list(names)


def _run(session: Any, inputs: Sequence[OnnxInput], output: str, width: int) -> StepRun:
    def run(operands: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        rows = len(operands[0])
        try:
            (result,) = session.run([output], _feed(inputs, operands))
        except Exception as error:  # as in _session
            raise InvalidDefinition(f"ONNX Runtime cannot run an `onnx` step on {rows} rows: {error}") from error
        if result.size != rows * width:
            raise InvalidDefinition(
                f"an `onnx` step gave shape {result.shape} for {rows} rows; ({rows}, {width}) is declared"
            )
        values: NDArray[np.float64] = np.ascontiguousarray(result.reshape(rows, width).T, dtype=np.float64)
        return values

    return run


def _feed(inputs: Sequence[OnnxInput], operands: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    feed: dict[str, NDArray[Any]] = {}
    start = 0
    for each in inputs:
        columns = np.stack(operands[start : start + each.columns], axis=1)
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, as in every output
            feed[each.name] = columns if each.element == "string" else columns.astype(each.element)
        start += each.columns
    return feed
