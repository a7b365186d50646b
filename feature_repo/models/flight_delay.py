"""Will this flight arrive more than 15 minutes late? Asked at its scheduled departure."""

from feature_repo.models.flight_columns import OUTPUTS
from skewless.dtypes import Dtype
from skewless.features.contract import RequestField
from skewless.training.definition import BinaryLabels, ExampleTable, ModelDefinition, Period
from skewless.training.gates import AgainstLive, CalibrationGate, LatencyGate, MetricGate, SliceGate
from skewless.training.slices import Slice
from skewless.transforms import Transform

flight_delay = ModelDefinition(
    name="flight-delay",
    description="probability that a flight out of New York arrives more than 15 minutes late",
    feature_service="flight_delay_v1",
    request_fields=(RequestField("scheduled_departure", Dtype.TIMESTAMP),),
    transform=Transform(outputs=OUTPUTS),
    examples=ExampleTable(path="examples.parquet"),
    training=Period.between("2013-01-01", "2013-05-01"),
    holdout=Period.between("2013-04-01", "2013-05-01"),
    labels=BinaryLabels(negative="on_time", positive="late"),
    nullable_keys=frozenset({"tailnum"}),
    slices=(Slice("carrier"), Slice("origin")),
    gates=(
        MetricGate("auroc", at_least=0.70),
        AgainstLive("auroc", tolerance=0.002),
        SliceGate("carrier", "auroc", no_worse_than=0.02),
        SliceGate("origin", "auroc", no_worse_than=0.01),
        CalibrationGate(ece=0.05),
        # About 1 ms on a quiet machine; the demo must also pass on a busy one.
        LatencyGate(p99_ms=100.0, rows=64),
    ),
)
