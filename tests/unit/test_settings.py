"""Settings: what is refused, how it is said, and what is printed."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from skewless.errors import InvalidSettings
from skewless.settings import (
    Home,
    Settings,
    StackSettings,
    as_environment,
    describe,
    load_settings,
)


class SecretSettings(BaseSettings):
    """A class with things to hide."""

    model_config = SettingsConfigDict(env_prefix="SKEWLESS_GATEWAY_")

    database_url: str = "postgresql://me:hidden@db/skewless"
    token: SecretStr = Field(default=SecretStr("hidden"), min_length=3)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for settings_class in (Settings, StackSettings, SecretSettings):
        for name in as_environment(settings_class()):
            monkeypatch.delenv(name, raising=False)


def test_a_misspelt_variable_is_refused_with_its_close_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_STACK_GATWAY_PORT", "8200")
    with pytest.raises(InvalidSettings) as refused:
        load_settings(StackSettings)
    assert "SKEWLESS_STACK_GATWAY_PORT is not a setting" in refused.value.message
    assert "SKEWLESS_STACK_VALKEY_PORT" in refused.value.message
    assert "SKEWLESS_STACK_GATEWAY_PORT" in refused.value.hint


def test_variables_of_other_services_are_no_misspelt_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_STACK_GATEWAY_PORT", "8200")
    monkeypatch.setenv("SKEWLESS_GATEWAY_LOG_FLUSH_MS", "0")
    assert load_settings(Settings).home == Path(".skewless")
    assert load_settings(StackSettings).gateway_port == 8200


def test_a_variable_without_a_known_prefix_is_refused_by_the_shared_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_STAK_GATEWAY_PORT", "8200")
    with pytest.raises(InvalidSettings, match="SKEWLESS_STAK_GATEWAY_PORT"):
        load_settings(Settings)


@pytest.mark.parametrize("value", ["seventy", "-1", "70000", "1.5"])
def test_a_wrong_value_is_refused_with_variable_and_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SKEWLESS_STACK_VALKEY_PORT", value)
    with pytest.raises(InvalidSettings, match=f"SKEWLESS_STACK_VALKEY_PORT is `{value}`.*Port of Valkey"):
        load_settings(StackSettings)


def test_contradicting_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_STACK_VALKEY_PORT", "8100")
    with pytest.raises(InvalidSettings, match="GATEWAY_PORT and SKEWLESS_STACK_VALKEY_PORT are both 8100"):
        load_settings(StackSettings)
    monkeypatch.setenv("SKEWLESS_STACK_VALKEY_PORT", "0")
    monkeypatch.setenv("SKEWLESS_STACK_RESTART_DELAY_S", "20")
    with pytest.raises(InvalidSettings, match="must not exceed SKEWLESS_STACK_RESTART_DELAY_MAX_S"):
        load_settings(StackSettings)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", "")
    assert load_settings(Settings).home == Path(".skewless")


def test_secrets_are_masked_where_settings_are_printed_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hidden" not in describe(SecretSettings())
    assert "SKEWLESS_GATEWAY_DATABASE_URL=postgresql://me:***@db/skewless" in describe(SecretSettings())
    monkeypatch.setenv("SKEWLESS_GATEWAY_TOKEN", "hi")
    with pytest.raises(InvalidSettings) as refused:
        load_settings(SecretSettings)
    assert "`***`" in refused.value.message


def test_settings_survive_the_way_into_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (
        Settings(home=Path("/elsewhere")),
        StackSettings(gateway_port=0, allow_as_of=True, restart_delay_s=0.25),
    ):
        for name, value in as_environment(settings).items():
            monkeypatch.setenv(name, value)
        assert load_settings(type(settings)) == settings


def test_the_registry_database_is_under_the_home_unless_configured(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).registry_url == f"sqlite:///{tmp_path}/registry.db"
    assert Settings(home=tmp_path, database_url="sqlite:///x.db").registry_url == "sqlite:///x.db"


def test_a_home_means_the_same_place_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home(Path(".skewless")).stack_file == tmp_path / ".skewless" / "stack.json"
