"""What a shipper tells over HTTP: its page of metrics, and whether it is well."""

import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import http_calls
from harness.stored_logs import answers, write_segment
from skewless.adapters.log_shipping import log_shipping
from skewless.errors import InvalidSettings
from skewless.settings import ShipperSettings
from skewless_shipper.listener import listening
from skewless_shipper.metrics import ShipperMetrics

HOST = "127.0.0.1"


def test_the_listener_answers_its_two_paths_and_nothing_else() -> None:
    problems = [""]
    with listening(HOST, 0, page=lambda: b"metric 1\n", health=lambda: problems[0]) as port:
        url = f"http://{HOST}:{port}"
        assert http_calls.get(f"{url}/metrics", timeout=30).text == "metric 1\n"
        assert (http_calls.get(f"{url}/healthz", timeout=30).status_code, problems) == (200, [""])
        problems[0] = "no look has ended"
        answer = http_calls.get(f"{url}/healthz", timeout=30)
        assert (answer.status_code, answer.text) == (503, "no look has ended\n")
        assert http_calls.get(f"{url}/", timeout=30).status_code == 404
        assert http_calls.post(f"{url}/metrics", timeout=30).status_code == 501


def test_a_port_that_is_taken_is_refused_by_the_name_of_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidSettings, match=f"SKEWLESS_SHIPPER_PORT {port}"),
            listening(HOST, port, page=lambda: b"", health=lambda: ""),
        ):
            pass


def test_metrics_are_named_by_one_rule_and_count_what_was_done(tmp_path: Path) -> None:
    metrics = ShipperMetrics()
    assert b"skewless_shipper" not in metrics.page(), "nothing is told before there is something"
    write_segment(tmp_path, [answers(3)])
    with log_shipping(ShipperSettings(prediction_log=tmp_path)) as shipping:
        assert not shipping.look()
        metrics.observe(shipping)
        waiting = families(metrics)
        assert shipping.look(at_once=True)
        metrics.observe(shipping)
    shipped = families(metrics)
    assert (waiting["skewless_shipper_waiting_segments"], shipped["skewless_shipper_waiting_segments"]) == (1, 0)
    assert waiting["skewless_shipper_waiting_bytes"] > 100
    assert shipped["skewless_shipper_rows"] == 3
    assert (shipped["skewless_shipper_rounds"], shipped["skewless_shipper_looks"]) == (1, 2)
    assert shipped["skewless_shipper_segments_removed"] == 1


def families(metrics: ShipperMetrics) -> dict[str, float]:
    """The samples of each family of the shipper together."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        if family.name.startswith("skewless_"):
            assert re.fullmatch(r"skewless_shipper_[a-z]+(_[a-z]+)*", family.name), family.name
            assert family.documentation, f"{family.name} says nothing of itself"
            found[family.name] = sum(sample.value for sample in family.samples)
    return found
