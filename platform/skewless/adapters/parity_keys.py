"""Looks for entities in the online store under keys of another type: what a writer with another type has left there."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.features.contract import FeatureContract, JoinKey, ViewRead
from skewless.features.frame import NO_EVENT_TIME
from skewless.features.plan import ReadPlan
from skewless.limits import ONLINE_STORE_TIMEOUT_S
from skewless.monitor_limits import PARITY_PROBED_ENTITIES_MAX
from skewless.parity.equality import Mask
from skewless.parity.sampling import entity_hashes

_KEY_DTYPES = (Dtype.INT32, Dtype.INT64, Dtype.STRING)
"""What joins keys are mistaken for one another: 7 as a number of either width, and as a text."""
_FAR_FUTURE_US = 2**62
"""No row is of the future of this moment, so that each has an event time."""


class OtherKeys:
    """A `KeyProbe` over the online store at a URL. Raises Unavailable where it is away."""

    def __init__(self, contract: FeatureContract, store: BlockingRedisOnlineStore) -> None:
        self._contract = contract
        self._store = store

    def __call__(self, view: ViewRead, keys: Mapping[str, Column]) -> Mask:
        """Which of the entities (asked,) the view has under other types; of very many only some are looked for."""
        rows = len(next(iter(keys.values())))
        _, first, entity = np.unique(entity_hashes(keys, rows), return_index=True, return_inverse=True)
        asked = first[:PARITY_PROBED_ENTITIES_MAX]
        found = np.zeros(len(first), dtype=np.bool_)
        for types in _other_types(view):
            converted = {
                key.name: _converted(keys[key.name], asked, dtype)
                for key, dtype in zip(view.join_keys, types, strict=True)
            }
            found[: len(asked)] |= self._stored(view, types, converted, len(asked))
        return np.asarray(found[entity.ravel()], dtype=np.bool_)

    def _stored(self, view: ViewRead, types: tuple[Dtype, ...], keys: Mapping[str, Column], rows: int) -> Mask:
        """Which entities (rows,) the view has a row of, their keys taken for these types."""
        join_keys: tuple[JoinKey, ...] = tuple(
            replace(key, dtype=dtype, nullable=True) for key, dtype in zip(view.join_keys, types, strict=True)
        )
        alone = replace(self._contract, views=(replace(view, join_keys=join_keys),), on_demand=(), request_fields=())
        prepared = ReadPlan.compile(alone).prepare(keys, rows)
        replies = self._store.read(prepared.keys, prepared.commands, timeout_s=ONLINE_STORE_TIMEOUT_S)
        frame = prepared.decode(replies, _FAR_FUTURE_US).whole
        return np.asarray(frame.event_times[view.name] != NO_EVENT_TIME, dtype=np.bool_)


def _other_types(view: ViewRead) -> Iterator[tuple[Dtype, ...]]:
    """Every other combination of types that the view's join keys could have been written with."""
    declared = tuple(key.dtype for key in view.join_keys)
    choices = [_KEY_DTYPES if dtype in _KEY_DTYPES else (dtype,) for dtype in declared]
    for types in itertools.product(*choices):
        if types != declared:
            yield types


def _converted(column: Column, rows: np.ndarray[tuple[int], np.dtype[np.intp]], dtype: Dtype) -> Column:
    """The values at `rows` as another type, null where that cannot be."""
    values = to_python(Column(column.dtype, column.values[rows], column.valid[rows]))
    return column_of(dtype, [_as(value, dtype) for value in values])


def _as(value: object, dtype: Dtype) -> object:
    if value is None or dtype not in _KEY_DTYPES:
        return value
    if dtype is Dtype.STRING:
        return str(value)
    try:
        number = int(str(value))
    except ValueError:
        return None
    half = 2**31 if dtype is Dtype.INT32 else 2**63
    return number if -half <= number < half else None
