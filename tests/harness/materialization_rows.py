"""A row in every table of materialization."""

from sqlalchemy import Engine

from skewless.canonical_json import digest
from skewless.features.materialization import Kind, Watermark
from skewless.registry.leases import Lease, Leases
from skewless.registry.materializations import MaterializationRun, Materializations, StartedBy


def run_of(view: str, number: int, **changes: object) -> MaterializationRun:
    """A run, newer with each number."""
    plain = {
        "id": f"{number:036}",
        "view": view,
        "kind": Kind.INCREMENTAL,
        "reason": "rows known since the last run",
        "started_by": StartedBy.SCHEDULED,
        "engine": "local",
        "owner": "ann@there pid 7",
        "as_of": 100 + number,
        "definition": digest("definition"),
        "plan": digest("plan"),
        "parts": 3,
        "source_rows": 1_000,
        "started_time": number,
        "since_created_time": 50,
        "newest_event_time": 90,
        "newest_created_time": 95,
    }
    return MaterializationRun(**{**plain, **changes})  # type: ignore[arg-type]  # fields by name


def lease_of(engine: Engine, view: str) -> Lease:
    """The lease of a view, for ten minutes."""
    return Leases(engine).take(f"view:{view}", "tests", lease_s=600)


def fill_materializations(engine: Engine) -> None:
    """Of a view `weather`."""
    records, lease = Materializations(engine), lease_of(engine, "weather")
    records.begin(run_of("weather", 1), lease)
    watermark = Watermark("weather", f"{1:036}", 101, 95, 90, digest("definition"))
    records.finish(f"{1:036}", lease, verified_rows=5, watermark=watermark)
