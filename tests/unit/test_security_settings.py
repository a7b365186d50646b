"""Settings that leave a door open, or mean nothing, refuse to start and say which variable it is."""

from pathlib import Path

import pytest

from skewless.errors import InvalidSettings
from skewless.registry.api_scopes import ApiRate
from skewless.settings import as_environment, describe, load_settings
from skewless_gateway.settings import GatewaySettings
from skewless_http.security.settings import Credential

NEEDED = {
    "ONLINE_STORE": "redis://127.0.0.1:6379", "TRITON": "127.0.0.1:8001", "DATABASE_URL": "sqlite:///registry.db",
    "ARTIFACTS": "artifacts", "PREDICTION_LOG": "predictions",
}  # fmt: skip
JWT = {"CREDENTIALS": "jwt", "JWT_ISSUER": "https://login.example.com", "JWT_AUDIENCE": "skewless"}


def _loaded(monkeypatch: pytest.MonkeyPatch, **given: str) -> GatewaySettings:
    for name, value in {**NEEDED, **given}.items():
        monkeypatch.setenv(f"SKEWLESS_GATEWAY_{name}", value)
    return load_settings(GatewaySettings)


def test_without_any_setting_callers_need_an_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _loaded(monkeypatch)
    assert not settings.development
    assert settings.accepted == {Credential.API_KEY}
    assert settings.default_rate is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.example", "192.168.1.1"])  # noqa: S104  # refused
def test_the_development_mode_refuses_to_start_where_others_reach_it(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with pytest.raises(InvalidSettings, match="SKEWLESS_GATEWAY_DEVELOPMENT lets anyone in"):
        _loaded(monkeypatch, DEVELOPMENT="true", HOST=host)
    for loopback in ("127.0.0.1", "localhost", "::1"):
        assert _loaded(monkeypatch, DEVELOPMENT="true", HOST=loopback).development


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"CREDENTIALS": "password"}, "CREDENTIALS names `password`"),
        ({"CREDENTIALS": " , "}, "CREDENTIALS is empty"),
        ({"CREDENTIALS": "jwt"}, "needs SKEWLESS_GATEWAY_JWT_ISSUER, SKEWLESS_GATEWAY_JWT_AUDIENCE"),
        ({"CREDENTIALS": "api-key,client-certificate"}, "needs SKEWLESS_GATEWAY_TLS_CERTIFICATE"),
        ({**JWT, "JWT_ISSUER": "http://login.example.com"}, "JWT_ISSUER is no https:// address"),
        ({**JWT, "JWT_KEYS_URL": "file:///keys"}, "JWT_KEYS_URL is no https:// address"),
        ({**JWT, "JWT_ALGORITHMS": "RS256,HS256"}, "JWT_ALGORITHMS names `HS256`"),
        ({**JWT, "JWT_ALGORITHMS": "none"}, "JWT_ALGORITHMS names `none`"),
        ({**JWT, "JWT_ALGORITHMS": ","}, "JWT_ALGORITHMS is empty"),
        ({**JWT, "JWT_REQUIRED": "azp"}, "JWT_REQUIRED is not of the form"),
        ({**JWT, "JWT_LEEWAY_S": "3600"}, "JWT_LEEWAY_S"),
        ({"TLS_CERTIFICATE": "server.pem"}, "TLS_CERTIFICATE and SKEWLESS_GATEWAY_TLS_KEY"),
        ({"TLS_KEY": "server.key"}, "TLS_CERTIFICATE and SKEWLESS_GATEWAY_TLS_KEY"),
        ({"TLS_CLIENT_CA": "ca.pem"}, "TLS_CLIENT_CA needs SKEWLESS_GATEWAY_TLS_CERTIFICATE"),
        ({"TLS_MINIMUM": "1.1"}, "TLS_MINIMUM"),
        ({"RATE_BURST": "5"}, "RATE_BURST needs SKEWLESS_GATEWAY_RATE_PER_S"),
        ({"RATE_PER_S": "-1"}, "RATE_PER_S"),
    ],
)
def test_a_contradiction_refuses_to_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidSettings, match=named):
        _loaded(monkeypatch, **given)


def test_lists_and_rates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _loaded(
        monkeypatch, **{**JWT, "CREDENTIALS": "jwt, api-key", "JWT_AUDIENCE": "one, two"},
        JWT_REQUIRED="azp=booking, groups=ml", RATE_PER_S="12.5",
    )  # fmt: skip
    assert settings.accepted == {Credential.JWT, Credential.API_KEY}
    assert settings.audiences == ("one", "two")
    assert settings.algorithms == {"RS256", "ES256"}
    assert settings.required_claims == (("azp", "booking"), ("groups", "ml"))
    assert settings.default_rate == ApiRate(12.5, 12)


def test_the_password_of_a_key_is_told_by_no_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"TLS_CERTIFICATE": str(tmp_path / "a.pem"), "TLS_KEY": str(tmp_path / "a.key")}
    settings = _loaded(monkeypatch, **files, TLS_KEY_PASSWORD="open-sesame")
    told = f"{describe(settings)} {settings!r} {settings} {as_environment(settings)}"
    assert "open-sesame" not in told
    with pytest.raises(InvalidSettings) as refused:
        _loaded(monkeypatch, **files, TLS_KEY_PASSWORD="open-sesame", TLS_MINIMUM="0")
    assert "open-sesame" not in str(refused.value)
