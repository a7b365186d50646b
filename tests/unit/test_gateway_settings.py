"""The gateway's own settings: contradictory ones refuse to start, and name their variables."""

from pathlib import Path

import pytest

from skewless.errors import InvalidSettings
from skewless.settings import describe
from skewless_gateway.cores import usable_cores
from skewless_gateway.settings import GatewaySettings, load_gateway_settings

EVERYWHERE = "0.0.0.0"  # noqa: S104  # which is what the settings are to refuse
NEEDED = {
    "ONLINE_STORE": "redis://127.0.0.1:6379",
    "TRITON": "in-process",
    "DATABASE_URL": "sqlite://",
    "ARTIFACTS": "artifacts",
    "PREDICTION_LOG": "predictions",
}


def loaded(monkeypatch: pytest.MonkeyPatch, **given: str) -> GatewaySettings:
    for name, value in {**NEEDED, **given}.items():
        monkeypatch.setenv(name if name.startswith("AIP_") else f"SKEWLESS_GATEWAY_{name}", value)
    return load_gateway_settings()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"PORT": "9000", "ADMIN_PORT": "9000"}, "SKEWLESS_GATEWAY_PORT and SKEWLESS_GATEWAY_ADMIN_PORT are both 9000"),
        ({"PORT": "9000", "GRPC_PORT": "9000"}, "SKEWLESS_GATEWAY_PORT and SKEWLESS_GATEWAY_GRPC_PORT are both 9000"),
        ({"ADMIN_HOST": EVERYWHERE}, "SKEWLESS_GATEWAY_ADMIN_TOKEN"),
        ({"ADMIN_TOKEN": "short"}, "SKEWLESS_GATEWAY_ADMIN_TOKEN is `***`"),
        ({"DEVELOPMENT": "true", "HOST": EVERYWHERE}, "SKEWLESS_GATEWAY_DEVELOPMENT"),
        ({"WORKERS": "-1"}, "SKEWLESS_GATEWAY_WORKERS"),
        ({"WORKER_SILENCE_S": "1"}, "SKEWLESS_GATEWAY_WORKER_SILENCE_S"),
        ({"VERTEX_PREDICT_ROUTE": "predict"}, "SKEWLESS_GATEWAY_VERTEX_PREDICT_ROUTE"),
        ({"VERTEX_PREDICT_ROUTE": "/v2/models"}, "SKEWLESS_GATEWAY_VERTEX_PREDICT_ROUTE"),
        ({"VERTEX_PREDICT_ROUTE": "/v1/endpoints/flight-delay/predict"}, "SKEWLESS_GATEWAY_VERTEX_PREDICT_ROUTE"),
        ({"VERTEX_PREDICT_ROUTE": "/{any}"}, "SKEWLESS_GATEWAY_VERTEX_PREDICT_ROUTE"),
        ({"VERTEX_HEALTH_ROUTE": "/predict"}, "SKEWLESS_GATEWAY_VERTEX_HEALTH_ROUTE are both `/predict`"),
    ],
)
def test_contradictory_settings_refuse_to_start(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidSettings) as refused:
        loaded(monkeypatch, **given)
    assert named in str(refused.value)


def test_an_admin_listener_for_others_needs_a_token_that_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, ADMIN_HOST=EVERYWHERE, ADMIN_TOKEN="a-token-of-the-operators")
    assert "a-token-of-the-operators" not in describe(settings)


def test_vertex_ai_says_port_and_routes_where_an_endpoint_is_named_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"AIP_HTTP_PORT": "8080", "AIP_PREDICT_ROUTE": "/p", "AIP_HEALTH_ROUTE": "/h"}
    assert loaded(monkeypatch, **theirs).port == 8100
    own = "/v1/endpoints/1/deployedModels/2:predict"
    assert loaded(monkeypatch, VERTEX_PREDICT_ROUTE=own).vertex_predict_route == own
    monkeypatch.delenv("SKEWLESS_GATEWAY_VERTEX_PREDICT_ROUTE")
    settings = loaded(monkeypatch, VERTEX_ENDPOINT="flight-delay", VERTEX_HEALTH_ROUTE="/ours")
    assert (settings.port, settings.vertex_predict_route, settings.vertex_health_route) == (8080, "/p", "/ours")


def test_workers_are_as_many_as_given_or_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch).worker_count == 1
    assert loaded(monkeypatch, WORKERS="3").worker_count == 3
    assert loaded(monkeypatch, WORKERS="0").worker_count == usable_cores()


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("nonsense", None), ("max 1", None)]
)
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == (cores or usable_cores(tmp_path / "none"))
