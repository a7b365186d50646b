"""The prediction log within a gateway: who asked, what is marked, and a log that has no room."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bundles import build_bundle, contract, instance
from harness.fakes import FakeModelBackend
from harness.gateways import GatewayOverFakes
from harness.log_batches import kept_ids
from harness.servers import wait_until
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.bundles.bundle import Bundle
from skewless.bundles.model_repository import model_name
from skewless.errors import BundleRefused
from skewless.features.contract import FeatureContract, LogMark
from skewless.serving.served_bundle import prepare_bundle
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_http.security.callers import anonymous

BOUND = 64 * 1024 * 1024


def marked(mark: LogMark) -> FeatureContract:
    """The contract of the tests, whose view of weather has a marked key and whose `distance` is marked too."""
    plain = contract()
    weather = plain.views[0]
    key = replace(weather.join_keys[0], log=mark)
    fields = [replace(each, log=mark) if each.name == "distance" else each for each in plain.request_fields]
    return replace(plain, views=(replace(weather, join_keys=(key,)), *plain.views[1:]), request_fields=tuple(fields))


def marked_bundle(folder: Path, mark: LogMark) -> Bundle:
    """A bundle whose contract has the marks; nothing else of it follows, such as its digest."""
    folder.mkdir(exist_ok=True)
    return replace(build_bundle(folder).bundle, contract=marked(mark))


def test_a_record_says_who_asked(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.anonymous = replace(anonymous(), id="key:shop")
    with gateway.running():
        assert gateway.predict(instance()).status_code == 200
        assert gateway.log.batches[0].caller == "key:shop"
        assert gateway.log.batches[0].marks is None


def test_a_bundle_knows_its_marks_and_that_its_transform_reads_marked_columns(tmp_path: Path) -> None:
    served = prepare_bundle(marked_bundle(tmp_path, LogMark.HASH), "model")
    assert served.log_marks is not None
    assert served.log_marks.hashed == {"origin", "distance"}
    assert not served.log_marks.keeps_tensor
    plain = replace(marked_bundle(tmp_path / "plain", LogMark.HASH), contract=contract())
    assert prepare_bundle(plain, "model").log_marks is None


@pytest.mark.parametrize("mark", [LogMark.HASH, LogMark.OMIT])
async def test_without_a_key_a_bundle_that_needs_one_is_not_loaded(mark: LogMark, tmp_path: Path) -> None:
    built = build_bundle(tmp_path)
    bundle = replace(built.bundle, contract=marked(mark))
    backend = FakeModelBackend({model_name(built.digest): built.outputs})
    bundles = LoadedBundles(lambda _digest: bundle, backend, hash_sizes=lambda _project: {}, can_hash=False)
    if mark is LogMark.OMIT:
        assert (await bundles.ready(built.digest)).served.log_marks is not None
    else:
        with pytest.raises(BundleRefused, match=r"`origin`, `distance`.*no key") as refused:
            await bundles.ready(built.digest)
        assert "SKEWLESS_GATEWAY_LOG_HASH_KEY" in refused.value.hint
        assert not backend.loaded
    await bundles.close()


def test_a_log_without_room_refuses_before_any_work_and_recovers(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    folder = tmp_path / "log"
    log = FolderPredictionLog(folder, flush_ms=0, segment_age_s=0.01, spool_bytes_max=BOUND)
    gateway.metrics.log.watch(log)
    gateway.log = log  # type: ignore[assignment]  # the real one in place of the fake
    with gateway.running():
        assert gateway.predict(instance()).status_code == 200
        waiting = SpoolFile.create(folder / SPOOL)
        waiting.append(b"\0")
        sealed = waiting.seal()
        assert sealed is not None
        os.truncate(sealed, BOUND)
        wait_until(lambda: gateway.client.get("/readyz").status_code == 503, "it is noticed")
        part = gateway.client.get("/readyz").json()["parts"]["prediction_log"]
        assert part["ok"] is False
        assert "wait to be shipped" in part["detail"]
        reads, calls = len(gateway.store.reads), gateway.backend.calls
        refused = gateway.predict(instance())
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "shipper" in refused.json()["hint"]
        assert "retry-after" in refused.headers
        assert (len(gateway.store.reads), gateway.backend.calls) == (reads, calls)
        metrics = gateway.client.get("/metrics").text
        assert "skewless_prediction_log_failing 1.0" in metrics
        sealed.unlink()
        wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "it recovers by itself")
        answered = gateway.predict(instance()).json()["prediction_ids"]
        metrics = gateway.client.get("/metrics").text
        assert "skewless_prediction_log_failing 0.0" in metrics
        assert "skewless_prediction_log_rows_total 2.0" in metrics
    assert kept_ids(folder)[-1:] == answered
    assert len(kept_ids(folder)) == 2
