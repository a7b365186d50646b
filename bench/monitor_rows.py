"""Logged traffic of 40 features in 6 views, made quickly: rows that repeat nothing, and the bundle that counts them."""

from collections.abc import Iterator

import numpy as np
import uuid_utils
from numpy.typing import NDArray

from skewless.adapters.log_store import LogStore
from skewless.adapters.log_tables import segment_tables
from skewless.canonical_json import digest
from skewless.drift.watched_bundle import WatchedBundle
from skewless.dtypes import Column, Dtype
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.frame import FeatureFrame
from skewless.serving.log_blocks import blocks
from skewless.serving.records import AnsweredBatch
from skewless.statistics.baseline import Baseline
from skewless.statistics.bins import age_bins, column_bins, number_bins
from skewless.statistics.variable import Part
from skewless.timestamps import HOUR_US, MINUTE_US, parse_timestamp

ENDPOINT = "watched"
ROLE = "live"
VIEWS, OUTPUTS = 6, 60
DTYPES = {Dtype.FLOAT32: 20, Dtype.INT64: 10, Dtype.BOOL: 4, Dtype.STRING: 6}
START_US = parse_timestamp("2026-06-01")
REQUEST_ROWS = 16
_KEY = JoinKey("customer", Dtype.INT64)
_WORDS = np.array([f"w{place}" for place in range(40)], dtype=object)
_NULL_SHARE, _STALE_SHARE = 0.05, 0.02
_STALE = 3
_TRAINED = 20_000


def contract() -> FeatureContract:
    """40 features, spread evenly over the views."""
    fields = [FeatureField(f"{dtype}{place}", dtype) for dtype, count in DTYPES.items() for place in range(count)]
    views = tuple(ViewRead(f"view{view}", (_KEY,), HOUR_US, tuple(fields[view::VIEWS])) for view in range(VIEWS))
    return FeatureContract("bench", views, (), digest("definitions of the benchmark"))


def watched_bundle() -> WatchedBundle:
    """A bundle whose bins were chosen by rows of the same kind."""
    given = contract()
    random = np.random.default_rng(1)
    variables = [
        column_bins(name, _column(dtype, _TRAINED, random), served=name in given.view_of_column, known_max=512)
        for name, dtype in given.columns
    ]
    tensor, scores = _tensor(_TRAINED, random), random.beta(2, 5, _TRAINED).astype(np.float32)
    variables += [number_bins(Part.OUTPUT, f"output{line}", tensor[:, line]) for line in range(OUTPUTS)]
    variables += [number_bins(Part.SCORE, "score", scores)]
    variables += [age_bins(f"view{view}", _ages(_TRAINED, random)) for view in range(VIEWS)]
    return WatchedBundle(digest("bundle"), given, Baseline(_TRAINED, tuple(variables)), (("probabilities", 2),))


def ship(store: LogStore, bundle: WatchedBundle, *, rows: int, segments: int, over_us: int = 10 * MINUTE_US) -> None:
    """Put so many rows of so many segments into a log store, one round for each, evenly over a time."""
    each = rows // segments
    for number in range(segments):
        start_us = START_US + number * over_us // segments
        batches = list(_answers(bundle, each, start_us, over_us // segments, seed=number))
        store.append("bench", number + 1, segment_tables(f"segment-{number:06d}", blocks(batches)))


def _answers(bundle: WatchedBundle, rows: int, start_us: int, over_us: int, *, seed: int) -> Iterator[AnsweredBatch]:
    """Requests of REQUEST_ROWS rows, one after the other."""
    random = np.random.default_rng([2, seed])
    columns = {name: _column(dtype, rows, random) for name, dtype in bundle.contract.columns}
    codes = {name: _codes(column, random) for name, column in columns.items() if name != _KEY.name}
    ages = {f"view{view}": _ages(rows, random) for view in range(VIEWS)}
    tensor, scores = _tensor(rows, random), random.beta(2, 5, rows).astype(np.float32)
    outputs = np.stack([1 - scores, scores], axis=1)
    for first in range(0, rows, REQUEST_ROWS):
        cut = slice(first, min(first + REQUEST_ROWS, rows))
        count = cut.stop - cut.start
        as_of = start_us + first * over_us // rows
        own = {name: Column(each.dtype, each.values[cut], each.valid[cut]) for name, each in columns.items()}
        frame = FeatureFrame(
            count,
            {name: own[name] for name in codes},
            {name: each[cut] for name, each in codes.items()},
            {view: as_of - each[cut] for view, each in ages.items()},
        )
        yield AnsweredBatch(
            endpoint=ENDPOINT,
            bundle=bundle.digest,
            role=ROLE,
            rung="normal",
            request_id=f"request-{seed}-{first}",
            as_of=as_of,
            prediction_ids=[str(uuid_utils.uuid7()) for _ in range(count)],
            key_names=(_KEY.name,),
            given={_KEY.name: own[_KEY.name]},
            frame=frame,
            tensor=tensor[cut],
            outputs={"probabilities": outputs[cut]},
            labels=["yes"] * count,
            probabilities=scores[cut],
            stage_ms={"features": 0.5, "model": 1.25},
        )


def _column(dtype: Dtype, rows: int, random: np.random.Generator) -> Column:
    valid = random.random(rows) >= _NULL_SHARE
    if dtype is Dtype.STRING:
        words = _WORDS[random.integers(0, len(_WORDS), rows)]
        words[~valid] = ""
        return Column(dtype, words, valid)
    values: NDArray[np.generic]
    if dtype is Dtype.FLOAT32:
        values = random.normal(size=rows).astype(np.float32)
    else:
        values = random.random(rows) < 0.5 if dtype is Dtype.BOOL else random.integers(0, 10_000, rows)
    values[~valid] = 0
    return Column(dtype, values, valid)


def _codes(column: Column, random: np.random.Generator) -> NDArray[np.uint8]:
    codes = (~column.valid).astype(np.uint8)
    codes[random.random(len(codes)) < _STALE_SHARE] = _STALE
    return codes


def _tensor(rows: int, random: np.random.Generator) -> NDArray[np.float32]:
    tensor = random.normal(size=(rows, OUTPUTS)).astype(np.float32)
    kinds = OUTPUTS // 2
    tensor[:, :kinds] = random.integers(0, kinds, rows)[:, np.newaxis] == np.arange(kinds)
    return tensor


def _ages(rows: int, random: np.random.Generator) -> NDArray[np.int64]:
    return random.integers(0, HOUR_US, rows)
