"""What can be declared of a stream, what is refused and how it is told, and the arithmetic that aggregates rest on."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.aggregate_world import declared
from skewless.aggregates import distinct_values, exact_sums
from skewless.aggregates.aggregation import Aggregate, count, distinct, last, maximum, mean, minimum, total
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.entity_state import EntityState, Event, Verdict, advance, built
from skewless.aggregates.state_form import packed, unpacked
from skewless.aggregates.windows import Window, sliding, tumbling
from skewless.canonical_json import encode
from skewless.dtypes import Dtype
from skewless.errors import Conflict, InvalidDefinition
from skewless.features.definition_metadata import FeatureMetadata, SourceMetadata, ViewMetadata
from skewless.ingest_limits import AGGREGATE_RECENT_EVENTS_MAX
from skewless.timestamps import HOUR_US, SECOND_US
from skewless.transforms import column

HOUR = sliding("1h", every="5m")


def stream(*aggregates: Aggregate, **more: Any) -> StreamAggregates:
    given: dict[str, Any] = {
        "name": "movements",
        "view": "activity",
        "keys": {"tail": Dtype.STRING},
        "fields": {"delay": Dtype.FLOAT64, "seats": Dtype.INT64, "dest": Dtype.STRING, "landed": Dtype.TIMESTAMP},
        "aggregates": aggregates or (count(HOUR),),
    }
    return StreamAggregates(**(given | more))


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: sliding("1h", every="7m"), "cannot move every 7m"),
        (lambda: sliding("1h", every="2h"), "cannot move every 2h"),
        (lambda: sliding("30d", every="1h"), "720 panes"),
        (lambda: tumbling("1 hour"), "no duration"),
        (lambda: distinct("dest", HOUR, exact=0), "Allowed: 1 to"),
        (lambda: count(HOUR, where=column("delay", Dtype.FLOAT64) > 1), "condition and no name"),
        (lambda: count(HOUR, where=column("delay", Dtype.FLOAT64).standardise() > 1, name="x"), "learns"),
        (lambda: stream(mean("dellay", HOUR)), "no field of the stream. Fields: `delay`"),
        (lambda: stream(mean("dest", HOUR)), "mean cannot be taken of `dest`"),
        (lambda: stream(distinct("delay", HOUR)), "distinct cannot be taken of `delay`"),
        (lambda: stream(total("seats", HOUR, dtype=Dtype.FLOAT32)), "cannot be float32"),
        (lambda: stream(count(HOUR, where=column("seats", Dtype.FLOAT64) > 1, name="x")), "reads `seats` as float64"),
        (lambda: stream(count(HOUR), count(HOUR)), "features have the same name: count_1h"),
        (lambda: stream(count(HOUR, name="tail")), "called as a key or a time: tail"),
        (lambda: stream(keys={"tail": Dtype.FLOAT64}), "key `tail` is float64"),
        (lambda: stream(fields={"verdict": Dtype.STRING}), "reserved: verdict"),
        (lambda: stream(fields={"each": Dtype.INT64_LIST}), "lists cannot be aggregated"),
        (lambda: stream(event_id="delay"), "names the event"),
        (lambda: stream(lateness="2d"), "Allowed: up to 1d"),
        (lambda: stream(keys={}), "needs a name, a view, a key and an aggregate"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_words(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        declare()
    assert said in caught.value.message


def test_a_declaration_is_plain_data_and_back_and_its_digest_is_that_of_its_meaning() -> None:
    one = declared()
    again = StreamAggregates.from_json(one.to_json())
    assert encode(again.to_json()) == encode(one.to_json())
    assert again.digest == one.digest != declared(lateness="8s").digest
    assert stream(owner="ann").digest == stream(owner="bob").digest
    with pytest.raises(InvalidDefinition, match="skewless apply"):
        StreamAggregates.from_json({**one.to_json(), "aggregates": [{"kind": "median"}]})


def test_features_have_names_and_dtypes_of_their_own() -> None:
    declaration = stream(
        count(HOUR),
        count(tumbling("1d", complete=True), "delay"),
        total("seats", HOUR),
        total("delay", HOUR, dtype=Dtype.FLOAT32),
        mean("seats", tumbling("90s")),
        minimum("landed", HOUR),
        maximum("seats", HOUR),
        last("dest", HOUR),
        distinct("tail", HOUR),
    )
    assert dict(declaration.features) == {
        "count_1h": Dtype.INT64,
        "count_delay_1d_tumbling_complete": Dtype.INT64,
        "sum_seats_1h": Dtype.INT64,
        "sum_delay_1h": Dtype.FLOAT32,
        "mean_seats_90s_tumbling": Dtype.FLOAT64,
        "min_landed_1h": Dtype.TIMESTAMP,
        "max_seats_1h": Dtype.INT64,
        "last_dest_1h": Dtype.STRING,
        "distinct_tail_1h": Dtype.INT64,
    }


def test_a_view_that_does_not_fit_its_stream_is_told_feature_by_feature() -> None:
    declaration = stream(count(HOUR), mean("delay", HOUR))
    features = (FeatureMetadata("count_1h", "Int64"), FeatureMetadata("mean_delay_1h", "Float64"))
    source = SourceMetadata("rows", "FileSource", "activity", "delta", "event_time", "created_time", ())
    fits = ViewMetadata("activity", ("tail",), (("tail", "String"),), features, 0, source)
    assert declaration.problems(fits) == []
    wrong = ViewMetadata("activity", ("tail",), (("tail", "Int64"),), (FeatureMetadata("count_1h", "Int32"),), 0, None)
    said = " ".join(each.message for each in declaration.problems(wrong))
    for part in ("keys are", "`count_1h` is Int64 there and Int32 here", "`mean_delay_1h`", "no Delta table"):
        assert part in said


@pytest.mark.parametrize("complete", [False, True])
def test_an_event_at_an_edge_belongs_to_the_pane_that_begins_there(complete: bool) -> None:
    window = Window(2 * HOUR_US, HOUR_US, complete)
    for moment in range(0, 6 * HOUR_US, HOUR_US // 2):
        for happened in (HOUR_US - 1, HOUR_US, 2 * HOUR_US - 1):
            first, final = window.pane_range(moment)
            held = first <= window.pane(happened) <= final and happened <= moment
            edges = window.edges(window.pane(happened))
            since = edges[0] if complete else happened
            assert held == (since <= moment < edges[-1])


def test_sums_are_those_of_fsum_in_any_order_and_grouping() -> None:
    chosen = random.Random(6)
    for _ in range(200):
        values = [chosen.uniform(-1, 1) * 10.0 ** chosen.randint(-320, 300) for _ in range(chosen.randint(1, 30))]
        values += [-value for value in values[::2]]
        expected = math.fsum(values)
        for _ in range(3):
            chosen.shuffle(values)
            middle = chosen.randint(0, len(values))
            halves = [sum(map(exact_sums.exact, some)) for some in (values[:middle], values[middle:])]
            kept = [exact_sums.from_bytes(exact_sums.to_bytes(each)) for each in halves]
            assert exact_sums.rounded(sum(kept)) == expected


def test_different_values_are_counted_exactly_up_to_the_bound_and_estimated_within_the_stated_error_beyond() -> None:
    kept, errors = 256, []
    for seed in range(40):
        hashes: distinct_values.Hashes = ()
        for value in range(5_000):
            hashes = distinct_values.with_hash(hashes, distinct_values.value_hash(f"{seed}/{value}"), kept)
            if value + 1 in (kept - 1, kept):
                assert distinct_values.count(hashes, kept) == value + 1
        errors.append(distinct_values.count(hashes, kept) / 5_000 - 1)
    spread = math.sqrt(sum(error * error for error in errors) / len(errors))
    assert 0.5 * distinct_values.standard_error(kept) < spread < 1.5 * distinct_values.standard_error(kept)
    assert abs(sum(errors) / len(errors)) < 3 * distinct_values.standard_error(kept) / math.sqrt(len(errors))


def test_a_crowded_entity_keeps_so_many_events_and_takes_older_ones_for_late() -> None:
    compiled = CompiledAggregates.of(stream(count(HOUR), mean("delay", HOUR), lateness="1h"))
    state, now = EntityState.empty(compiled), 1_000 * HOUR_US
    crowd = [Event((now - place, now, place), 0, (1, 1.5)) for place in range(AGGREGATE_RECENT_EVENTS_MAX + 50)]
    advance(compiled, state, now, crowd)
    assert len(state.recent) == AGGREGATE_RECENT_EVENTS_MAX
    older, newer = Event((now - 2 * HOUR_US // 3, now + 1, 0), 0, (1, 1.5)), Event((now, now + 1, 1), 0, (1, 1.5))
    rows, verdicts = advance(compiled, state, now + 1, [older, newer])
    assert verdicts == [Verdict.LATE, Verdict.COUNTED]
    assert rows[-1].values == (len(crowd) + 1, 1.5)
    assert len(packed(compiled, state)) < 100_000


def test_a_state_is_read_back_as_it_was_and_by_its_own_declaration_alone() -> None:
    compiled = CompiledAggregates.of(
        stream(count(HOUR), total("delay", HOUR), distinct("dest", HOUR), last("dest", HOUR))
    )
    now = 1_000 * HOUR_US
    events = [
        Event((now - place * SECOND_US, now, place), place, (1, 0.1 * place, distinct_values.value_hash(place), "x"))
        for place in range(20)
    ]
    state = built(compiled, events, now + HOUR_US // 2)
    assert state.recent == []
    data = packed(compiled, state)
    assert packed(compiled, unpacked(compiled, data)) == data
    other = CompiledAggregates.of(stream(count(HOUR), lateness="1m"))
    for wrong in (data, data[:-3], b"", b"\xc1"):
        with pytest.raises(Conflict, match="skewless aggregates rebuild movements"):
            unpacked(other, wrong)
