"""What a parity check found, added up part by part, and told as plain data.

A unit is one prediction and one view: however many columns of a view differ for one cause, it counts once. Rates are
over those units, with bounds that know that rows of one entity are alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.features.contract import FeatureContract, column_name
from skewless.monitor_limits import PARITY_EXAMPLES_MAX
from skewless.parity.causes import ACCOUNTS, CAUSE_CODE, CAUSES, NO_CAUSE, PENDING, Cause
from skewless.parity.check import Checked
from skewless.parity.computed_causes import Codes
from skewless.parity.equality import Mask
from skewless.parity.explanation import explain_value
from skewless.parity.rates import ClusterCounts, Rate, clustered_rate
from skewless.parity.relation import relation
from skewless.parity.sampling import entity_hashes
from skewless.parity.tally import Count, Level, Stratum, TallyKey, groups_of

FORMAT = 1
MODEL_INPUT = "(model input)"
PREDICTION = "(prediction)"
"""Where a cause stands that is none of a view's."""
_PAIRS_MAX = 1_000


@dataclass(slots=True)
class _Found:
    """What is added up of one cause of one view."""

    units: ClusterCounts = field(default_factory=ClusterCounts)
    values: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass(slots=True)
class Levels:
    """Equal and compared, level by level. `close` counts values equal within their dtype's tolerance."""

    values: int = 0
    values_same: int = 0
    values_close: int = 0
    statuses_equal: int = 0
    rows: int = 0
    rows_equal: int = 0
    rows_judged: int = 0
    tensors_equal: int = 0
    outputs_equal: int = 0
    finally_equal: int = 0
    pending: int = 0
    values_pending: int = 0
    """Of those, values that are not equal; the others are of another age."""
    tensors_pending: int = 0
    outputs_pending: int = 0
    overrides: int = 0


class Findings:
    """Adds up checked parts; `report` tells what was found. Memory does not grow with the number of predictions."""

    def __init__(self) -> None:
        self.levels = Levels()
        self._units: dict[str, ClusterCounts] = {}
        self._differing: dict[str, ClusterCounts] = {}
        self._causes: dict[tuple[str, Cause], _Found] = {}
        self._later: dict[tuple[str, Cause], ClusterCounts] = {}
        self._entities = ClusterCounts()

    def add(self, checked: Checked, contract: FeatureContract) -> None:
        """Count a part of the check."""
        served = checked.served
        keys = {key.name: served.given[key.name] for key in contract.join_keys}
        whole = entity_hashes(keys, served.rows)
        self._entities.add(whole)
        for view in contract.views:
            hashes = entity_hashes({key.name: keys[key.name] for key in view.join_keys}, served.rows)
            columns = [column_name(view.name, each.name) for each in view.features]
            self._add_view(checked, contract, view.name, columns, hashes)
            self._add_later(checked, view.name, columns, hashes)
        for computed in contract.on_demand:
            columns = [column_name(computed.name, each.name) for each in computed.features]
            self._add_view(checked, contract, computed.name, columns, whole)
        self._add_level(checked, MODEL_INPUT, checked.tensor, whole)
        self._add_level(checked, PREDICTION, checked.output, whole)
        self._count(checked)

    def report(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data for JSON: `about` (what was checked), then what was found."""
        predictions = self.levels.rows
        return {
            "format": FORMAT,
            **about,
            "predictions": predictions,
            "entities": int(np.count_nonzero(self._entities.counts)),
            "levels": self._levels(),
            "views": [
                {"view": view, **_rate_json(clustered_rate(self._differing.get(view), units))}
                for view, units in self._units.items()
            ],
            "causes": [
                self._cause_json(view, cause)
                for view, cause in sorted(self._causes, key=lambda pair: (CAUSE_CODE[pair[1]], pair[0]))
            ],
            "known_later": [
                {"view": view, "cause": cause.value, **_rate_json(clustered_rate(found, self._units[view]))}
                for (view, cause), found in sorted(self._later.items())
            ],
        }

    def tally(self, bundle: Digest, stratum: Stratum) -> dict[TallyKey, Count]:
        """The same as counts that add up; what is pending is neither equal nor a mismatch."""
        levels = self.levels
        values = levels.values - levels.values_pending
        counts = {
            Level.VALUES: Count(values, values - levels.values_close),
            Level.STATUSES: Count(levels.values, levels.values - levels.statuses_equal - _aged_only(levels)),
            Level.MODEL_INPUTS: _singly(levels.rows_judged, levels.tensors_equal, levels.tensors_pending),
            Level.PREDICTIONS: _singly(levels.rows_judged, levels.outputs_equal, levels.outputs_pending),
            Level.PENDING: Count(levels.values, levels.pending),
            Level.GIVEN: Count(levels.values, levels.overrides),
        }
        found = {TallyKey(bundle, stratum, level): count for level, count in counts.items()}
        for view, units in self._units.items():
            found[TallyKey(bundle, stratum, Level.VIEWS, view)] = _count(units, self._differing.get(view))
        for (view, cause), each in self._causes.items():
            found[TallyKey(bundle, stratum, Level.CAUSES, view, cause.value)] = Count(
                self._units[view].total, each.units.total, None, groups_of(each.units)
            )
        for (view, cause), later in self._later.items():
            found[TallyKey(bundle, stratum, Level.KNOWN_LATER, view, cause.value)] = Count(
                self._units[view].total, min(later.total, self._units[view].total), None, groups_of(later)
            )
        return found

    def examples(self) -> list[tuple[str, Cause, dict[str, Any]]]:
        """(view, cause, explanation) of some mismatches of each."""
        return [(view, cause, each) for (view, cause), found in self._causes.items() for each in found.examples]

    def _levels(self) -> dict[str, Any]:
        levels = self.levels
        return {
            "values": {
                "compared": levels.values,
                "bit_equal": levels.values_same,
                "equal": levels.values_close,
                "equal_to_finally_known": levels.finally_equal,
                "given_in_requests": levels.overrides,
                "pending": levels.pending,
            },
            "statuses_and_ages": {"compared": levels.values, "equal": levels.statuses_equal},
            "model_inputs": {"compared": levels.rows_judged, "equal": levels.tensors_equal},
            "predictions": {"compared": levels.rows_judged, "equal": levels.outputs_equal},
            "feature_rows": {"compared": levels.rows, "equal": levels.rows_equal},
        }

    def _count(self, checked: Checked) -> None:
        levels, rows = self.levels, checked.served.rows
        different = np.zeros(rows, dtype=np.bool_)
        for name, equal in checked.equal.items():
            codes = checked.features[name]
            levels.values += rows
            levels.values_same += int(np.count_nonzero(equal.same))
            levels.values_close += int(np.count_nonzero(equal.close))
            levels.statuses_equal += int(np.count_nonzero((codes == NO_CAUSE) | ~equal.close))
            levels.finally_equal += int(np.count_nonzero(checked.finally_equal[name]))
            levels.pending += int(np.count_nonzero(codes == PENDING))
            levels.values_pending += int(np.count_nonzero((codes == PENDING) & ~equal.close))
            different |= codes < PENDING
        levels.overrides += checked.overrides
        levels.rows += rows
        levels.rows_equal += rows - int(np.count_nonzero(different))
        levels.rows_judged += int(np.count_nonzero(checked.judged))
        levels.tensors_equal += int(np.count_nonzero(checked.tensor_same & checked.judged))
        levels.outputs_equal += int(np.count_nonzero(checked.output_same & checked.judged))
        levels.tensors_pending += int(np.count_nonzero(checked.judged & (checked.tensor == PENDING)))
        levels.outputs_pending += int(np.count_nonzero(checked.judged & (checked.output == PENDING)))

    def _add_view(
        self, checked: Checked, contract: FeatureContract, view: str, columns: list[str], hashes: NDArray[np.uint64]
    ) -> None:
        codes = np.array([checked.features[name] for name in columns], dtype=np.uint8)
        judged = ~np.any(codes == PENDING, axis=0)
        self._units.setdefault(view, ClusterCounts()).add(hashes[judged])
        wrong = judged & np.any(codes < PENDING, axis=0)
        if not wrong.any():
            return
        self._differing.setdefault(view, ClusterCounts()).add(hashes[wrong])
        for code in np.unique(codes[codes < PENDING]).tolist():
            found = self._causes.setdefault((view, CAUSES[code]), _Found())
            hits = codes == code
            found.units.add(hashes[np.any(hits, axis=0)])
            found.values += int(np.count_nonzero(hits))
            for place, row in np.argwhere(hits)[: PARITY_EXAMPLES_MAX - len(found.examples)].tolist():
                found.examples.append(explain_value(checked, contract, row, columns[place]).to_json())
            if CAUSES[code] is Cause.PIPELINES_DIFFER:
                _pair(found, checked, columns, hits)

    def _add_later(self, checked: Checked, view: str, columns: list[str], hashes: NDArray[np.uint64]) -> None:
        codes = np.array([checked.later[name] for name in columns], dtype=np.uint8)
        for code in np.unique(codes[codes != NO_CAUSE]).tolist():
            found = self._later.setdefault((view, CAUSES[code]), ClusterCounts())
            found.add(hashes[np.any(codes == code, axis=0)])

    def _add_level(self, checked: Checked, level: str, codes: Codes, hashes: NDArray[np.uint64]) -> None:
        """Causes of a level that are its own: those that a feature of the row has are told with the feature."""
        self._units.setdefault(level, ClusterCounts()).add(hashes)
        own = (codes < PENDING) & ~_told_before(checked, level, codes)
        if own.any():
            self._differing.setdefault(level, ClusterCounts()).add(hashes[own])
        for code in np.unique(codes[own]).tolist():
            found = self._causes.setdefault((level, CAUSES[code]), _Found())
            rows = np.flatnonzero(own & (codes == code))
            found.units.add(hashes[rows])
            found.values += len(rows)
            for row in rows[: PARITY_EXAMPLES_MAX - len(found.examples)].tolist():
                found.examples.append(_level_example(checked, level, row))

    def _cause_json(self, view: str, cause: Cause) -> dict[str, Any]:
        found, account = self._causes[view, cause], ACCOUNTS[cause]
        rules = {
            name: told
            for name, pairs in found.pairs.items()
            if (told := relation(*(np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))))
        }
        return {
            "view": view,
            "cause": cause.value,
            "kind": account.kind.value,
            **_rate_json(clustered_rate(found.units, self._units[view])),
            "values": found.values,
            "meaning": account.meaning,
            "advice": account.advice,
            "repair": account.repair,
            **({"rules": rules} if rules else {}),
            "examples": found.examples,
        }


def _count(units: ClusterCounts, hits: ClusterCounts | None) -> Count:
    return Count(
        units.total, 0 if hits is None else hits.total, groups_of(units), None if hits is None else groups_of(hits)
    )


def _singly(rows: int, equal: int, pending: int) -> Count:
    return Count(rows - pending, rows - pending - equal)


def _aged_only(levels: Levels) -> int:
    """Pending values that are equal, and differ in their age alone."""
    return levels.pending - levels.values_pending


def _told_before(checked: Checked, level: str, codes: Codes) -> Mask:
    told = np.zeros(len(codes), dtype=np.bool_)
    before = [*checked.features.values(), *([checked.tensor] if level == PREDICTION else [])]
    for each in before:
        told |= each == codes
    return told


def _level_example(checked: Checked, level: str, row: int) -> dict[str, Any]:
    served = checked.served
    side = served.tensor[row] if level == MODEL_INPUT else served.outputs[row]
    return {"prediction_id": served.prediction_ids[row], "served": [float(each) for each in side[:8].tolist()]}


def _pair(found: _Found, checked: Checked, columns: list[str], hits: NDArray[np.bool_]) -> None:
    """Keep some values of numeric columns, to see whether one pipeline has them by a fixed rule from the other."""
    for place, name in enumerate(columns):
        served, offline = checked.served.frame.columns[name], checked.then.columns[name]
        if served.values.dtype.kind not in "if" or not hits[place].any():
            continue
        kept = found.pairs.setdefault(name, [])
        rows = np.flatnonzero(hits[place])[: _PAIRS_MAX - len(kept)]
        kept += list(zip(served.values[rows].tolist(), offline.values[rows].tolist(), strict=True))


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {
        "units": rate.rows,
        "differing": rate.hits,
        "entities": rate.entities,
        "rate": rate.value,
        "low": rate.low,
        "high": rate.high,
    }
