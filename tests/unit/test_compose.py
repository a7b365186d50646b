"""docker-compose.yml against the Compose Specification's schema and the project's own rules. No engine runs here."""

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness.rules import RECORDED, rules
from skewless.monitor_settings import MonitorSettings
from skewless.settings import ShipperSettings, variable_name
from skewless_gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def _one_shot(name: str) -> bool:
    """Whether others wait for the service to end, and not for its health."""
    waits = [service.get("depends_on", {}).get(name, {}) for service in SERVICES.values()]
    return any(each.get("condition") == "service_completed_successfully" for each in waits)


def _validator() -> Draft202012Validator:
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return Draft202012Validator(json.loads((schemas / "compose-spec.json").read_text()))


def test_the_file_follows_the_compose_specification() -> None:
    errors = [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(COMPOSE)]
    assert not errors


def test_the_schema_refuses_a_misspelt_key() -> None:
    broken = {"services": {"gateway": {"image": "a:1", "restarts": "always"}}}
    assert not _validator().is_valid(broken)


@each_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name} publishes {port}; write 127.0.0.1:HOST:CONTAINER"


@each_service
def test_images_have_a_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.match(r"v?\d", tag), f"{name}: the tag `{tag}` does not say a version"


@pytest.mark.parametrize(
    "dockerfile", sorted(ROOT.glob("[sm]*/skewless_*/Dockerfile")), ids=lambda each: each.parent.name
)
def test_dockerfiles_start_from_versions_and_install_hashes(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":v?\d", base), f"{dockerfile}: {base} does not say a version"
    for install in re.findall(r"pip install (?:[^\n]*\\\n)*[^\n]*", text):
        assert "--require-hashes" in install or install.endswith("--no-build-isolation ."), install


@each_service
def test_services_restart_and_say_their_health(name: str) -> None:
    service = SERVICES[name]
    assert service.get("restart"), f"{name} has no restart policy"
    assert _one_shot(name) or "healthcheck" in service, f"{name} has no health check"


def test_secrets_come_from_the_environment_and_are_required() -> None:
    for variable in re.findall(r"\$\{?(\w*PASSWORD\w*)(?!\w*:\?)", TEXT):
        uses = re.findall(rf"\$\{{?{variable}[^}}]*", TEXT)
        assert all(use.startswith(f"${{{variable}:?") for use in uses), f"{variable} must be ${{{variable}:?…}}"


def test_the_gateway_gets_settings_that_it_has() -> None:
    prefix = GatewaySettings.model_config["env_prefix"]
    known = {f"{prefix}{field}".upper() for field in GatewaySettings.model_fields}
    given = set(SERVICES["gateway"]["environment"])
    assert given <= known, f"the gateway has no {sorted(given - known)}; it has {sorted(known)}"
    required = {
        f"{prefix}{name}".upper() for name, field in GatewaySettings.model_fields.items() if field.is_required()
    }
    assert required <= given, f"not given: {sorted(required - given)}"


def test_each_profile_starts_triton_under_the_name_that_the_gateway_calls() -> None:
    host, _, port = (
        SERVICES["gateway"]["environment"]["SKEWLESS_GATEWAY_TRITON"]
        .removeprefix("http://")
        .partition("?")[0]
        .partition(":")
    )
    for profile in ("cpu", "gpu"):
        (triton,) = [each for each in SERVICES.values() if profile in each.get("profiles", [])]
        assert host in triton["networks"]["default"]["aliases"]
        assert f"127.0.0.1:{port}:{port}" in triton["ports"]


def test_prometheus_scrapes_services_that_exist_and_loads_rules_that_exist() -> None:
    folder = ROOT / "monitoring" / "prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    targets = [
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    names = {*SERVICES, "triton"}
    assert {target.partition(":")[0] for target in targets} <= names
    assert all((folder / rules).is_file() for rules in config["rule_files"])


def test_prometheus_scrapes_the_admin_listener_with_its_token() -> None:
    gateway = SERVICES["gateway"]["environment"]
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == "gateway"]
    assert job["static_configs"][0]["targets"] == [f"gateway:{gateway['SKEWLESS_GATEWAY_ADMIN_PORT']}"]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert gateway["SKEWLESS_GATEWAY_ADMIN_TOKEN"].startswith("${" + COMPOSE["secrets"][secret]["environment"])


def test_the_shipper_gets_settings_that_it_has() -> None:
    known = {variable_name(ShipperSettings, field) for field in ShipperSettings.model_fields}
    given = set(SERVICES["shipper"]["environment"])
    assert given <= known, f"the shipper has no {sorted(given - known)}; it has {sorted(known)}"
    assert variable_name(ShipperSettings, "prediction_log") in given
    gateway, shipper = SERVICES["gateway"], SERVICES["shipper"]
    assert gateway["environment"]["SKEWLESS_GATEWAY_PREDICTION_LOG"] == "/var/lib/skewless/predictions"
    assert [each for each in shipper["volumes"] if each in gateway["volumes"]], "both see one folder"


def test_prometheus_scrapes_the_shipper() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == "shipper"]
    port = SERVICES["shipper"]["environment"]["SKEWLESS_SHIPPER_PORT"]
    assert job["static_configs"][0]["targets"] == [f"shipper:{port}"]


def test_the_monitor_gets_settings_that_it_has_and_sees_what_others_write() -> None:
    known = {variable_name(MonitorSettings, field) for field in MonitorSettings.model_fields}
    monitor, gateway = SERVICES["monitor"], SERVICES["gateway"]
    given = monitor["environment"]
    assert set(given) <= known, f"the monitor has no {sorted(set(given) - known)}; it has {sorted(known)}"
    required = {
        variable_name(MonitorSettings, name)
        for name, field in MonitorSettings.model_fields.items()
        if field.is_required()
    }
    assert required <= set(given)
    for name in ("DATABASE_URL", "ARTIFACTS", "PREDICTION_LOG"):
        assert given[f"SKEWLESS_MONITOR_{name}"] == gateway["environment"][f"SKEWLESS_GATEWAY_{name}"], name
    assert given["SKEWLESS_MONITOR_LOG_STORE"] == SERVICES["shipper"]["environment"]["SKEWLESS_SHIPPER_LOG_STORE"]
    assert "predictions:/var/lib/skewless/predictions:ro" in monitor["volumes"], "it reads the log, and never writes it"


def test_prometheus_scrapes_the_monitor_and_tells_alertmanager() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == "monitor"]
    port = SERVICES["monitor"]["environment"]["SKEWLESS_MONITOR_PORT"]
    assert job["static_configs"][0]["targets"] == [f"monitor:{port}"]
    (told,) = config["alerting"]["alertmanagers"]
    (target,) = told["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]
    (folder,) = [each for each in SERVICES[name]["volumes"] if each.endswith(":/etc/alertmanager:ro")]
    assert (ROOT / folder.partition(":")[0] / "alertmanager.yml").is_file()


def test_images_are_built_from_all_that_their_dockerfiles_copy() -> None:
    kept = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    for dockerfile in ROOT.glob("[sm]*/skewless_*/Dockerfile"):
        copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
        missing = {each.partition("/")[0] for line in copied for each in line.split()} - kept
        assert not missing, f"{dockerfile}: .dockerignore leaves out {sorted(missing)}"
        roots = {"platform", "services", "monitoring", "feature_repo", "migrations"}
        if "--no-build-isolation ." in dockerfile.read_text():
            assert roots <= {each for line in copied for each in line.split()}, (
                f"{dockerfile} builds without a source root"
            )


def test_metrics_of_rules_stand_in_the_code_of_some_process() -> None:
    services = ("gateway", "http", "ingest", "scheduler", "shipper")
    processes = (*(f"services/skewless_{name}" for name in services), "monitoring/skewless_monitor")
    metrics = "".join(path.read_text() for each in processes for path in (ROOT / each).rglob("*.py"))
    for rule in rules():
        for metric in re.findall(r"\bskewless_\w+", RECORDED.sub("", rule.expr)):
            family = re.sub(r"_(bucket|sum|count|total)$", "", metric)
            assert f'"{family}' in metrics, f"{rule.name}: no module of {', '.join(processes)} has {metric}"


def test_grafana_finds_its_dashboards_and_prometheus_where_its_provisioning_says() -> None:
    provisioning = ROOT / "monitoring" / "grafana" / "provisioning"
    mounts = dict(each.removesuffix(":ro").split(":")[::-1] for each in SERVICES["grafana"]["volumes"])
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "skewless.yml").read_text())["providers"]
    assert list((ROOT / mounts[provider["options"]["path"]]).glob("*.json"))
    assert ROOT / mounts["/etc/grafana/provisioning"] == provisioning
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    name, port = source["url"].removeprefix("http://").split(":")
    assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]
