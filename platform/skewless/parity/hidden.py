"""Columns of which the log does not keep what was served: hashed ones are compared by their hashes, others left out.

What a bundle reads is cut down to what can be compared: features of which nothing is kept are taken out, and so are
on-demand views that have anything to do with a marked column, for they cannot be computed again from what was served.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, LogMark, ViewRead, column_name
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.parity.equality import Mask
from skewless.parity.evidence import Versions
from skewless.serving.log_privacy import LogMarks, LogPrivacy, log_marks


@dataclass(frozen=True, slots=True)
class Hidden:
    """What of a bundle's columns the log hides.

    `hashed` are stored features, compared by their hashes under the key of `privacy`; `lost` are all columns that are
    not compared. `inputs_known` says whether the model input can be computed: of no lost column.
    """

    hashed: frozenset[str] = frozenset()
    lost: tuple[str, ...] = ()
    inputs_known: bool = True
    privacy: LogPrivacy = field(default_factory=LogPrivacy)

    def as_logged(self, frame: FeatureFrame) -> FeatureFrame:
        """An offline frame with hashes where the log has them."""
        if not self.hashed:
            return frame
        return replace(frame, columns=self._hashed(frame.columns, frame.rows))

    def versions_as_logged(self, view: str, versions: Versions) -> Versions:
        """Versions of a view's source rows with hashes where the log has them."""
        named = {column_name(view, name): column for name, column in versions.columns.items()}
        if self.hashed.isdisjoint(named):
            return versions
        columns = self._hashed(named, len(versions.row))
        return replace(
            versions,
            columns={name.removeprefix(f"{view}__"): column for name, column in columns.items()},
            raw={name: each for name, each in versions.raw.items() if column_name(view, name) not in self.hashed},
        )

    def as_served(self, columns: Mapping[str, Column], offline: FeatureFrame) -> dict[str, Column]:
        """Logged columns with offline values in place of hashes: the served ones wherever both hashes are equal."""
        return {name: offline.columns[name] if name in self.hashed else each for name, each in columns.items()}

    def judged(self, served: FeatureFrame) -> Mask:
        """Rows (rows,) whose model input can be compared: not where a request gave a hashed value itself."""
        found = np.full(served.rows, self.inputs_known, dtype=np.bool_)
        for name in self.hashed:
            found &= served.statuses[name] != STATUS_CODE[Status.OVERRIDE]
        return found

    def _hashed(self, columns: Mapping[str, Column], rows: int) -> Mapping[str, Column]:
        return self.privacy.kept(columns, LogMarks(self.hashed, frozenset(), keeps_tensor=False), rows)


NOTHING_HIDDEN = Hidden()


def cut_down(
    contract: FeatureContract, transform_inputs: frozenset[str], privacy: LogPrivacy
) -> tuple[FeatureContract, Hidden]:
    """What of a contract can be compared, with the dtypes of the offline store, and what the log hides of the rest.

    `privacy` has the gateways' key, or none. Raises InvalidDefinition where a join key is marked: then nobody can say
    whose features they were.
    """
    marks = log_marks(contract)
    if not marks:
        return contract, NOTHING_HIDDEN
    for key in contract.join_keys:
        if key.name in marks:
            raise InvalidDefinition(
                f"the log does not keep join key `{key.name}` as it was given, so nobody can say whose features "
                "its predictions were made of",
                hint="parity needs join keys; mark features and request fields, or leave such bundles unchecked",
            )
    stored = {column_name(view.name, each.name) for view in contract.views for each in view.features}
    hashed = frozenset(
        name for name, mark in marks.items() if privacy.can_hash and name in stored and mark is LogMark.HASH
    )
    on_demand = tuple(
        view
        for view in contract.on_demand
        if marks.keys().isdisjoint([name for _, name in view.inputs])
        and marks.keys().isdisjoint([column_name(view.name, each.name) for each in view.features])
    )
    lost = (marks.keys() & stored) - hashed
    cut = replace(
        contract,
        views=tuple(kept for view in contract.views if (kept := _without(view, lost)).features),
        request_fields=tuple(each for each in contract.request_fields if each.name not in marks),
        on_demand=on_demand,
    )
    left = {name for name, _ in cut.columns}
    gone = tuple(name for name, _ in contract.columns if name not in left)
    return cut, Hidden(hashed, gone, transform_inputs.isdisjoint(gone), privacy)


def logged_contract(contract: FeatureContract, hidden: Hidden) -> FeatureContract:
    """The contract with the dtypes that the log has: hashes are texts."""
    if not hidden.hashed:
        return contract
    views = tuple(
        replace(
            view,
            features=tuple(
                replace(each, dtype=Dtype.STRING) if column_name(view.name, each.name) in hidden.hashed else each
                for each in view.features
            ),
        )
        for view in contract.views
    )
    return replace(contract, views=views)


def _without(view: ViewRead, lost: frozenset[str] | set[str]) -> ViewRead:
    return replace(
        view, features=tuple(each for each in view.features if column_name(view.name, each.name) not in lost)
    )
