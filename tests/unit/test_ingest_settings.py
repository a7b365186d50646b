"""Settings of the ingestion service: what fits together, by the names that were set; and what its container gets."""

from pathlib import Path

import pytest
import yaml

from skewless.errors import InvalidSettings
from skewless.settings import Settings, StackSettings, load_settings
from skewless.stack.plan import plan_stack
from skewless_ingest.settings import IngestSettings

ROOT = Path(__file__).parents[2]
PREFIX = "SKEWLESS_INGEST_"
NEEDED = {"ONLINE_STORE": "redis://127.0.0.1:6379", "DATABASE_URL": "sqlite:///registry.db"}


def loaded(monkeypatch: pytest.MonkeyPatch, **values: str) -> IngestSettings:
    for name, value in {**NEEDED, **values}.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    return load_settings(IngestSettings)


def test_nobody_comes_in_unless_it_is_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch)
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8104, 8105)
    assert not settings.development
    assert settings.credentials == "api-key"
    assert settings.quarantine_folder == Path(".skewless/quality/quarantine"), "where the commands look for it"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"PORT": "8105"}, "INGEST_PORT"),
        ({"DEVELOPMENT": "true", "HOST": "192.0.2.1"}, "INGEST_DEVELOPMENT"),
        ({"DEVELOPMENT": "true", "ADMIN_HOST": "192.0.2.1"}, "INGEST_ADMIN_HOST"),
        ({"ADMIN_HOST": "192.0.2.1"}, "INGEST_ADMIN_TOKEN"),
        ({"ADMIN_HOST": "192.0.2.1", "ADMIN_TOKEN": "short"}, "INGEST_ADMIN_TOKEN"),
        ({"CREDENTIALS": "jwt"}, "INGEST_JWT_ISSUER"),
        ({"TLS_CERTIFICATE": "a.pem"}, "INGEST_TLS_KEY"),
        ({"STREAM_OPTIONS": "kafka.properties"}, "INGEST_STREAM"),
        ({"PROT": "1"}, "INGEST_PORT"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_the_names_of_this_service(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], told: str
) -> None:
    with pytest.raises(InvalidSettings) as refused:
        loaded(monkeypatch, **values)
    assert told in str(refused.value)
    assert "GATEWAY" not in str(refused.value)


def test_metrics_leave_the_machine_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, ADMIN_HOST="192.0.2.1", ADMIN_TOKEN="sixteen characters")
    assert settings.admin_token is not None
    assert "sixteen" not in repr(settings)


def test_the_stack_runs_it_where_it_is_asked_to_and_tells_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path))
    without, _ = plan_stack(load_settings(Settings), StackSettings())
    assert without.ingest_url == without.ingest_admin_url == ""
    addresses, specs = plan_stack(load_settings(Settings), StackSettings(ingest=True))
    (spec,) = [each for each in specs if each.name == "ingest"]
    given = spec.environment
    assert addresses.ingest_url == f"http://127.0.0.1:{given[f'{PREFIX}PORT']}"
    assert addresses.ingest_admin_url == f"http://127.0.0.1:{given[f'{PREFIX}ADMIN_PORT']}"
    assert given[f"{PREFIX}ONLINE_STORE"] == addresses.valkey_url
    assert spec.depends_on == ("valkey",)


def test_its_container_gets_settings_that_it_has() -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["ingest"]
    given = set(service["environment"])
    assert given <= {f"{PREFIX}{name.upper()}" for name in IngestSettings.model_fields}
    required = {f"{PREFIX}{name.upper()}" for name, field in IngestSettings.model_fields.items() if field.is_required()}
    assert required <= given
    assert f"{PREFIX}DEVELOPMENT" not in given
