"""The monitor's job `metrics` and `skewless model-metrics`, over a home with a registry, a bundle and a log."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner, Result
from prometheus_client.metrics_core import Metric

from harness.bundles import build_bundle
from harness.logged_rows import ENDPOINT, NOW, a_batch, new_id, spool, told
from harness.shipped_logs import ship
from skewless.canonical_json import Digest
from skewless.cli.main import main
from skewless.dtypes import Dtype, column_of
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.model_metrics.history import PAST_PERIODS
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine, upgrade
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry, system_clock
from skewless.serving.monitoring_policy import MetricsPolicy, MonitoringPolicy
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.timestamps import DAY_US, SECOND_US
from skewless_monitor.metrics_job import MetricsJob, open_job

POLICY = MetricsPolicy(slices=("origin",), counters={"lates": ("late",)})
AIRPORTS = ("EWR", "JFK", "LGA")
NEVER = threading.Event()


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """The live bundle of an endpoint in a home."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "artifacts").mkdir()
    built = build_bundle(tmp_path / "artifacts")
    upgrade(url(tmp_path))
    registry = Registry(engine(url(tmp_path)))
    record = BundleRecord.of(built.bundle, artifact=built.digest, created_time=system_clock())
    registry.register_bundle(replace(record, metrics={"auroc": 0.8, "brier": 0.2, "rows": 9}))
    registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="ann", reason="test")
    registry.set_monitoring(ENDPOINT, MonitoringPolicy(metrics=POLICY), actor="ann", reason="test")
    registry.set_outcome_terms(ENDPOINT, OutcomeTerms(label_horizon_us=DAY_US), actor="ann", reason="test")
    registry.close()
    return built.digest


def url(home: Path) -> str:
    return f"sqlite:///{home / 'registry.db'}"


def opened(home: Path) -> MetricsJob:
    settings = MonitorSettings(
        database_url=url(home), artifacts=str(home / "artifacts"), prediction_log=home / "predictions", home=home
    )
    return open_job(settings)


def day(number: int, bundle: Digest, rows: int = 60) -> tuple[AnsweredBatch, tuple[Outcome, ...]]:
    """Predictions of one day, and an outcome for each."""
    random = np.random.default_rng(number)
    scores = random.random(rows).astype(np.float32)
    made = replace(
        a_batch(
            [AIRPORTS[row % 3] for row in range(rows)], as_of=NOW + number * DAY_US, ids=[new_id() for _ in scores]
        ),
        bundle=bundle,
        probabilities=scores,
        labels=np.where(scores >= 0.5, "late", "on_time").tolist(),
    )
    labels = np.where(random.random(rows) < scores, "late", "on_time").tolist()
    return made, tuple(told(each, label) for each, label in zip(made.prediction_ids, labels, strict=True))


def samples(job: MetricsJob) -> dict[tuple[str, ...], float]:
    """By name and label values in their order."""
    families: list[Metric] = list(job.collect())
    told = [((each.name, *each.labels.values()), each.value) for family in families for each in family.samples]
    assert len(dict(told)) == len(told), "every series is told once"
    return dict(told)


def test_the_job_keeps_metrics_up_and_tells_the_newest_mature_period(tmp_path: Path, bundle: Digest) -> None:
    first, outcomes = day(0, bundle)
    spool(tmp_path / "predictions", first, outcomes)
    job = opened(tmp_path)
    assert next(job.collect()).samples == []
    assert job.lag_s is None
    assert not job.run_once(NEVER)
    found, short = samples(job), bundle[:12]
    assert found["skewless_model_metric", ENDPOINT, short, "live", "", "auroc"] > 0.6
    assert found["skewless_model_reference", ENDPOINT, short, "auroc"] == 0.8
    assert found["skewless_model_outcome_share", ENDPOINT, short, "live"] == 1.0
    assert found["skewless_model_metric", ENDPOINT, short, "live", "origin=JFK", "brier"] > 0.0
    assert ("skewless_model_metric", ENDPOINT, short, "live", "origin=JFK", "ece") not in found
    assert found["skewless_model_metric", ENDPOINT, short, "live", "", "counter_lates"] > 0.2
    later, late_outcomes = day(1, bundle)
    spool(tmp_path / "predictions", later, late_outcomes[:20])
    assert not job.run_once(NEVER)
    after = samples(job)
    assert after["skewless_model_outcome_share", ENDPOINT, short, "live"] == pytest.approx(1 / 3)
    end = ("skewless_model_period_end_timestamp_seconds", ENDPOINT, short, "live")
    assert after[end] == found[end] == (NOW // DAY_US + 1) * DAY_US / SECOND_US, "the new period has not matured"
    assert after["skewless_model_estimate", ENDPOINT, short, "live", "auroc"] > 0.6
    assert after["skewless_model_estimate_error", ENDPOINT, short, "live", "brier"] < 0.2
    assert after["skewless_model_periods_waiting", ENDPOINT] == 0
    made, received = (
        after[f"skewless_model_last_{each}_timestamp_seconds", ENDPOINT] for each in ("prediction", "outcome")
    )
    assert abs(made - received) < 60
    assert job.lag_s == 0.0
    job.close()


def test_another_process_goes_on_where_one_ended(tmp_path: Path, bundle: Digest) -> None:
    for number in range(3):
        spool(tmp_path / "predictions", *day(number, bundle))
    stopped = threading.Event()
    job = opened(tmp_path)
    assert not job.run_once(NEVER)
    before = [each.to_json() for each in ModelMetrics(engine(url(tmp_path))).metrics(ENDPOINT, slice_called=None)]
    job.close()
    second = opened(tmp_path)
    stopped.set()
    assert not second.run_once(stopped), "nothing is begun that is to be stopped"
    assert not second.run_once(NEVER)
    again = [each.to_json() for each in ModelMetrics(engine(url(tmp_path))).metrics(ENDPOINT, slice_called=None)]
    assert again == before
    assert samples(second)["skewless_model_metric", ENDPOINT, bundle[:12], "live", "", "accuracy"] > 0.5
    second.close()


def test_an_endpoint_that_cannot_be_judged_does_not_keep_the_others_from_it(tmp_path: Path, bundle: Digest) -> None:
    spool(tmp_path / "predictions", *day(0, bundle))
    registry = Registry(engine(url(tmp_path)))
    registry.create_endpoint("broken", description="", bundle=bundle, actor="ann", reason="test")
    wrong = MonitoringPolicy(metrics=MetricsPolicy(slices=("nothing",)))
    registry.set_monitoring("broken", wrong, actor="ann", reason="test")
    made, outcomes = day(0, bundle)
    spool(tmp_path / "predictions", replace(made, endpoint="broken"), outcomes)
    job = opened(tmp_path)
    with pytest.raises(InvalidDefinition, match="slices of `nothing`"):
        job.run_once(NEVER)
    assert ("skewless_model_metric", ENDPOINT, bundle[:12], "live", "", "auroc") in samples(job)
    job.close()
    registry.close()


def test_a_fault_that_nobody_foresaw_does_not_keep_the_others_from_their_turn(tmp_path: Path, bundle: Digest) -> None:
    registry = Registry(engine(url(tmp_path)))
    registry.create_endpoint("broken", description="", bundle=bundle, actor="ann", reason="test")
    registry.close()
    made, _ = day(0, bundle)
    spool(tmp_path / "predictions", replace(made, endpoint="broken"), seal=True)
    ship(tmp_path / "predictions")
    (file,) = (tmp_path / "predictions" / "store").rglob("*.parquet")
    file.chmod(0o644)
    file.write_bytes(b"no Parquet" * file.stat().st_size)
    spool(tmp_path / "predictions", *day(0, bundle))
    job = opened(tmp_path)
    with pytest.raises(duckdb.Error):
        job.run_once(NEVER)
    assert ("skewless_model_metric", ENDPOINT, bundle[:12], "live", "", "auroc") in samples(job)
    job.close()


def test_slices_are_told_where_training_names_them_and_no_word_of_a_caller_is(tmp_path: Path, bundle: Digest) -> None:
    made, _ = day(0, bundle, rows=80)
    names = column_of(Dtype.STRING, (["Ann Smith", "EWR", "JFK", None] * 20))
    named = replace(made, given={**made.given, "origin": names})
    spool(tmp_path / "predictions", named, tuple(told(each) for each in named.prediction_ids))
    job = opened(tmp_path)
    assert not job.run_once(NEVER)
    found = {labels[4] for labels in samples(job) if labels[0] == "skewless_model_metric"}
    assert found == {"", "origin=EWR", "origin=JFK", "origin=(null)"}
    kept = ModelMetrics(engine(url(tmp_path))).metrics(ENDPOINT, slice_called=None)
    assert "origin=Ann Smith" in {each.slice for each in kept}, "whoever may read the database sees it"
    job.close()


def test_a_bundle_whose_files_were_changed_is_named(tmp_path: Path, bundle: Digest) -> None:
    spool(tmp_path / "predictions", *day(0, bundle))
    (file,) = (tmp_path / "artifacts").rglob("post_processing.json")
    file.chmod(0o644)
    file.write_text(file.read_text().replace("late", "tale"))
    job = opened(tmp_path)
    with pytest.raises(BundleRefused, match=r"post_processing\.json"):
        job.run_once(NEVER)
    job.close()


def answer(*words: str) -> Any:
    result = run("model-metrics", *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_commands_compute_and_show(tmp_path: Path, bundle: Digest) -> None:
    assert answer("show", ENDPOINT)["metrics"] == []
    assert "nothing is computed" in run("model-metrics", "show", ENDPOINT).output
    for number in range(4):
        spool(tmp_path / "predictions", *day(number, bundle))
    last, outcomes = day(4, bundle)
    spool(tmp_path / "predictions", last, outcomes[:10])
    assert answer("compute", ENDPOINT) == {"endpoint": ENDPOINT, "computed": 5, "waiting": 0}
    assert answer("compute", ENDPOINT)["computed"] == 0
    found = answer("show", ENDPOINT)
    assert {each["period_start"][:10] for each in found["metrics"]} == {f"2013-05-0{number}" for number in range(1, 6)}
    assert found["counters"][0]["counter"] == "lates"
    assert {each["metric"] for each in found["estimate_errors"]} == {"accuracy", "auroc", "brier", "log_loss"}
    shown = run("model-metrics", "show", ENDPOINT).stdout
    assert "IMMATURE" in shown
    assert "hold-out 0.8" in shown
    assert "≈ auroc" in shown
    assert "▁" in shown
    assert "cannot see a change of the outcome" in shown
    of_slice = answer("show", ENDPOINT, "--slice", "origin=EWR", "--metric", "auroc", "--since", "2013-05-02")
    assert {(each["slice"], each["metric"]) for each in of_slice["metrics"]} == {("origin=EWR", "auroc")}
    assert len([each for each in of_slice["metrics"] if not each["is_estimate"]]) == 4
    assert answer("show", ENDPOINT, "--slices") == ["origin=EWR", "origin=JFK", "origin=LGA"]
    assert answer("show", ENDPOINT, "--bundle", "0" * 8)["metrics"] == []
    assert run("model-metrics", "show", "nothing").exit_code == 2
    assert PAST_PERIODS >= 4
