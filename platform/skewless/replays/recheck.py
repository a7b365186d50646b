"""Recomputing logged predictions from their records alone: tensor, outputs, label and probability.

    columns kept in the record ──transform──▶ tensor ──digest──▶ the recorded digest, bit for bit
    tensor ──model──▶ outputs ──▶ the recorded outputs, bit for bit or within the bundle's own bound
    recorded outputs ──post-processing──▶ label and probability ──▶ the recorded ones, bit for bit

Many rows of one bundle are recomputed at once, which gives each the bits that it has alone (a row transforms and
scores alike alone and in any batch).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.replays.recorded import RecordedRows
from skewless.serving.rungs import Rung
from skewless.transforms import FittedTransform
from skewless.transforms.description import describe
from skewless.transforms.execution import PreparedTransform

RunModel = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""Tensor (rows, columns) to the model's outputs by name, each (rows, columns) float32."""
_COLUMNS_TOLD = 3
_LITTLE_ENDIAN = np.dtype("<f4")


class Verdict(StrEnum):
    """What came of recomputing one prediction."""

    EXACT = "exact"
    """Every bit is the recorded one."""
    WITHIN_BOUND = "within_bound"
    """The tensor is the recorded one bit for bit, and no output is further off than the bundle's own bound."""
    DIFFERENT = "different"
    NOT_DECIDED = "not_decided"
    """Something that is needed to recompute it is not kept; what could be compared is equal."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How exactly outputs must be reproduced: the bundle's output tolerance on `target`; 0.0 is bit for bit."""

    tolerance: float
    target: str

    def text(self) -> str:
        """In words."""
        if not self.tolerance:
            return f"bit for bit, as the bundle's serving profile pins it on {self.target}"
        return f"within {self.tolerance:g}, the output tolerance of the bundle's serving profile on {self.target}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One prediction that is not what its record says, at the first level where that shows."""

    prediction_id: str
    bundle: str
    level: str
    """`record`, `tensor`, `output` or `answer`."""
    told: str
    inputs: tuple[str, ...] = ()
    """Columns of the record of which every differing part of the tensor is made; a changed value is one of them."""

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "prediction_id": self.prediction_id,
            "bundle": self.bundle,
            "level": self.level,
            "told": self.told,
            "inputs": list(self.inputs),
        }


@dataclass(frozen=True, slots=True)
class Recheck:
    """Rows of one bundle, recomputed. Masks are (rows,); `tensor` is None where it could not be made again.

    `verdicts` has one per row; `differences` tells the first of those that are DIFFERENT.
    """

    rows: int
    tensor: NDArray[np.float32] | None
    digests: Sequence[str]
    """Of the recomputed tensors; empty where there are none."""
    outputs: Mapping[str, NDArray[np.float32]]
    """Recomputed; NaN in rows for which no model was asked. Empty where there are none."""
    labels: Sequence[str]
    """From the recomputed outputs; as recorded where there are none."""
    probabilities: NDArray[np.float32]
    verdicts: Sequence[Verdict]
    not_decided: str
    """Why rows are NOT_DECIDED; empty where none is."""
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> Counter[Verdict]:
        """How many rows have each verdict."""
        return Counter(self.verdicts)


class Rechecker:
    """One bundle, ready to recompute its predictions."""

    def __init__(self, bundle: Bundle, run: RunModel | None, bound: Bound, *, no_model: str = "") -> None:
        """`run` None: the model cannot be run here, for the reason `no_model`."""
        self.bundle = bundle
        self.bound = bound
        self._run = run
        self._no_model = no_model
        self._transform: PreparedTransform = bundle.transform.prepare()

    def recheck(self, recorded: RecordedRows, *, told_max: int) -> Recheck:
        """Recompute rows of this bundle; up to `told_max` differences are told, in order of the rows."""
        lacking = [name for name, _ in self.bundle.transform.inputs if name not in recorded.columns]
        answers = self._answers_differ(recorded)
        if lacking:
            return self._without_tensor(recorded, lacking, answers, told_max)
        tensor = self._transform.apply(recorded.columns, recorded.rows)
        pieces = row_bytes(tensor)
        digests = [hashlib.sha256(piece).hexdigest() for piece in pieces]
        asked = _asked(recorded)
        outputs = {} if self._run is None else _only_asked(self._run(tensor), asked)
        found = _Found(
            record=np.array(
                [
                    kept is not None and kept != piece and digest == told
                    for kept, piece, digest, told in zip(
                        recorded.tensors, pieces, digests, recorded.tensor_digests, strict=True
                    )
                ],
                dtype=np.bool_,
            ),
            tensor=np.array(digests, dtype=object) != np.array(recorded.tensor_digests, dtype=object),
            bits=_rows_differ(outputs, recorded.outputs, 0.0) & asked,
            beyond=_rows_differ(outputs, recorded.outputs, self.bound.tolerance) & asked,
            answer=answers,
        )
        labels, probabilities = self._answer(recorded, outputs, asked)
        return Recheck(
            rows=recorded.rows,
            tensor=tensor,
            digests=digests,
            outputs=outputs,
            labels=labels,
            probabilities=probabilities,
            verdicts=found.verdicts(is_whole=self._run is not None),
            not_decided="" if self._run is not None else self._no_model,
            differences=tuple(self._tell(recorded, tensor, outputs, found, told_max)),
        )

    def _without_tensor(
        self, recorded: RecordedRows, lacking: Sequence[str], answers: NDArray[np.bool_], told_max: int
    ) -> Recheck:
        reasons = "; ".join(f"`{name}`: {recorded.not_kept.get(name, 'not in the record')}" for name in lacking)
        told = (
            Difference(recorded.prediction_ids[row], self.bundle.digest, "answer", self._told_answer(recorded, row))
            for row in np.flatnonzero(answers).tolist()[:told_max]
        )
        return Recheck(
            rows=recorded.rows,
            tensor=None,
            digests=(),
            outputs={},
            labels=recorded.labels,
            probabilities=recorded.probabilities,
            verdicts=[Verdict.DIFFERENT if each else Verdict.NOT_DECIDED for each in answers.tolist()],
            not_decided=f"the transform reads what the record does not keep ({reasons})",
            differences=tuple(told),
        )

    def _answers_differ(self, recorded: RecordedRows) -> NDArray[np.bool_]:
        """Rows whose label or probability is not what post-processing makes of the recorded outputs."""
        differing = np.zeros(recorded.rows, dtype=np.bool_)
        asked = _asked(recorded)
        constant = self.bundle.serving.degrade.constant
        expected = np.full(recorded.rows, np.nan if constant is None else constant, dtype=np.float32)
        raw = recorded.outputs[self.bundle.post.output]
        finite = asked & np.isfinite(raw[:, -1])
        expected[asked] = np.nan
        if finite.any():
            expected[finite] = self.bundle.post.scores({self.bundle.post.output: raw[finite]})
        labels = np.array(self.bundle.post.label_of(expected), dtype=object)
        differing |= _bits(expected) != _bits(recorded.probabilities)
        differing |= labels != np.array(recorded.labels, dtype=object)
        return differing

    def _answer(
        self, recorded: RecordedRows, outputs: Mapping[str, NDArray[np.float32]], asked: NDArray[np.bool_]
    ) -> tuple[Sequence[str], NDArray[np.float32]]:
        """Label and probability from the recomputed outputs; the recorded ones where no model was asked."""
        if not outputs or not asked.any():
            return recorded.labels, recorded.probabilities
        probabilities = recorded.probabilities.copy()
        probabilities[asked] = self.bundle.post.scores(
            {self.bundle.post.output: outputs[self.bundle.post.output][asked]}
        )
        return self.bundle.post.label_of(probabilities), probabilities

    def _tell(
        self,
        recorded: RecordedRows,
        tensor: NDArray[np.float32],
        outputs: Mapping[str, NDArray[np.float32]],
        found: "_Found",
        told_max: int,
    ) -> Iterator[Difference]:
        for row in np.flatnonzero(found.different).tolist()[:told_max]:
            named = recorded.prediction_ids[row], self.bundle.digest
            if found.tensor[row]:
                told, inputs = _told_tensor(self.bundle.transform, recorded, tensor[row], row)
                yield Difference(*named, "tensor", told, inputs)
            elif found.record[row]:
                told = "the recorded tensor does not have the recorded digest, which the recomputed tensor has"
                yield Difference(*named, "record", told)
            elif found.beyond[row]:
                yield Difference(*named, "output", _told_output(recorded, outputs, row, self.bound))
            else:
                yield Difference(*named, "answer", self._told_answer(recorded, row))

    def _told_answer(self, recorded: RecordedRows, row: int) -> str:
        raw = recorded.outputs[self.bundle.post.output][row]
        return (
            f"label `{recorded.labels[row]}` and probability {float(recorded.probabilities[row])!r} are recorded, which"
            f" post-processing does not make of the recorded output {raw.tolist()}"
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows (rows,) that differ at each level. `bits` is of outputs, `beyond` those of it that exceed the bound."""

    record: NDArray[np.bool_]
    tensor: NDArray[np.bool_]
    bits: NDArray[np.bool_]
    beyond: NDArray[np.bool_]
    answer: NDArray[np.bool_]

    @property
    def different(self) -> NDArray[np.bool_]:
        return self.record | self.tensor | self.beyond | self.answer

    def verdicts(self, *, is_whole: bool) -> list[Verdict]:
        equal = Verdict.EXACT if is_whole else Verdict.NOT_DECIDED
        return [
            Verdict.DIFFERENT if different else Verdict.WITHIN_BOUND if off else equal
            for different, off in zip(self.different.tolist(), self.bits.tolist(), strict=True)
        ]


def row_bytes(tensor: NDArray[np.float32]) -> list[bytes]:
    """Each row of a tensor (rows, columns) as little-endian float32 bytes, as the log keeps it."""
    data = np.ascontiguousarray(tensor, dtype=_LITTLE_ENDIAN).tobytes()
    width = tensor.shape[1] * _LITTLE_ENDIAN.itemsize
    return [data[row * width : (row + 1) * width] for row in range(len(tensor))]


def made_of(fitted: FittedTransform, outputs: Sequence[int]) -> tuple[str, ...]:
    """Columns of which each of these tensor columns (by index) is made; all they are made of where they share none."""
    reads = [{name for name, _, _ in each.reads} for each in describe(fitted) for _ in each.columns]
    wanted = [reads[index] for index in outputs]
    shared = set.intersection(*wanted) or set.union(*wanted) if wanted else set()
    return tuple(name for name, _ in fitted.inputs if name in shared)


def _asked(recorded: RecordedRows) -> NDArray[np.bool_]:
    """Rows for which a model was asked: all but those that were answered by a constant."""
    return np.fromiter((rung != Rung.CONSTANT for rung in recorded.rungs), dtype=np.bool_, count=recorded.rows)


def _only_asked(outputs: Mapping[str, NDArray[np.float32]], asked: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    if asked.all():
        return dict(outputs)
    return {name: np.where(asked[:, np.newaxis], values, np.float32(np.nan)) for name, values in outputs.items()}


def _rows_differ(
    recomputed: Mapping[str, NDArray[np.float32]], recorded: Mapping[str, NDArray[np.float32]], tolerance: float
) -> NDArray[np.bool_]:
    """Rows in which a recomputed output has other bits than the recorded one and is further off than `tolerance`."""
    rows = len(next(iter(recorded.values())))
    differing = np.zeros(rows, dtype=np.bool_)
    for name, values in recomputed.items():
        differing |= _apart(values, recorded[name], tolerance).any(axis=1)
    return differing


def _apart(first: NDArray[np.float32], second: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    bits: NDArray[np.bool_] = np.ascontiguousarray(first).view(np.uint32) != np.ascontiguousarray(second).view(
        np.uint32
    )
    if not tolerance:
        return bits
    with np.errstate(invalid="ignore"):
        near = np.abs(first.astype(np.float64) - second) <= tolerance
    return bits & ~near


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)


def _told_tensor(
    fitted: FittedTransform, recorded: RecordedRows, recomputed: NDArray[np.float32], row: int
) -> tuple[str, tuple[str, ...]]:
    """What differs between a recorded and a recomputed tensor, and the columns it is made of."""
    kept = recorded.tensors[row]
    if kept is None:
        return "the recomputed tensor has another digest than the recorded one, which was left out", ()
    if len(kept) != recomputed.nbytes:
        return f"the recorded tensor has {len(kept)} bytes, the bundle's transform gives {recomputed.nbytes}", ()
    served = np.frombuffer(kept, dtype=_LITTLE_ENDIAN)
    differing = np.flatnonzero(served.view("<u4") != recomputed.astype(_LITTLE_ENDIAN, copy=False).view("<u4")).tolist()
    if not differing:
        return "the recorded digest is not that of the recorded tensor, which the recomputed tensor equals", ()
    names = fitted.output_names
    told = [
        f"`{names[index]}` was {float(served[index])!r}, recomputed {float(recomputed[index])!r}"
        for index in differing[:_COLUMNS_TOLD]
    ]
    more = f" and {len(differing) - _COLUMNS_TOLD} more" if len(differing) > _COLUMNS_TOLD else ""
    inputs = made_of(fitted, differing)
    made = ", ".join(f"`{name}`" for name in inputs)
    return f"{', '.join(told)}{more}; made of {made or 'no column'}", inputs


def _told_output(recorded: RecordedRows, recomputed: Mapping[str, NDArray[np.float32]], row: int, bound: Bound) -> str:
    for name, values in recomputed.items():
        served = recorded.outputs[name][row]
        if _apart(values[row : row + 1], served[np.newaxis], bound.tolerance).any():
            return (
                f"the model's output `{name}` was {served.tolist()}, recomputed {values[row].tolist()}; it must be"
                f" reproduced {bound.text()}"
            )
    raise AssertionError("a row that differs has an output that does")
