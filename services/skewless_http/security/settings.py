"""Settings of who may ask and over what wire; a part of the settings of each service, whose prefix they have."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from skewless.adapters.jwks_rules import ALGORITHMS, why_not_https
from skewless.registry.api_scopes import RATE_BURST_MAX, RATE_PER_S_MAX, ApiRate
from skewless.settings import prefix_of


class Credential(StrEnum):
    """A way for callers to say who they are."""

    API_KEY = "api-key"
    JWT = "jwt"
    CLIENT_CERTIFICATE = "client-certificate"


class TlsVersion(StrEnum):
    """The oldest version of TLS that is spoken."""

    V1_2 = "1.2"
    V1_3 = "1.3"


class SecuritySettings(BaseSettings):
    """Who may ask, how often, and over what wire. Refuses combinations that leave a door open or have no meaning."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 inside a container.")
    development: bool = Field(
        False, description="Whether anyone may ask without a credential; only where `host` is a loopback address."
    )
    credentials: str = Field(
        Credential.API_KEY.value,
        description="How callers say who they are: `api-key`, `jwt`, `client-certificate`, or several with commas.",
    )
    jwt_issuer: str | None = Field(
        None, description="The `iss` of tokens, and the https:// address under which its discovery document is."
    )
    jwt_audience: str | None = Field(
        None, description="The `aud` of tokens that are meant for this gateway; several with commas."
    )
    jwt_keys_url: str | None = Field(
        None, description="https:// address of the issuer's key set; its discovery document says it where not given."
    )
    jwt_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that sign the issuer's certificate; the public ones if not given.",
    )
    jwt_algorithms: str = Field(
        "RS256,ES256", description="Signatures that tokens may have, with commas; none that works by a shared secret."
    )
    jwt_leeway_s: float = Field(
        30.0, ge=0, le=300, description="Seconds by which the issuer's clock and this one may differ."
    )
    jwt_endpoints_claim: str = Field(
        "skewless.endpoints",
        min_length=1,
        description="Claim with the endpoints that a token's bearer may ask, or `*`.",
    )
    jwt_scope_claim: str = Field(
        "scope", min_length=1, description="Claim with scopes, of which `predict:<endpoint>` and `predict:*` count."
    )
    jwt_required: str = Field(
        "", description="Claims that every token must have, such as `azp=booking,groups=scoring`; a list must hold it."
    )
    rate_per_s: float = Field(
        0.0, ge=0, le=RATE_PER_S_MAX,
        description="Requests per second of a caller whose key says nothing else; 0 for no limit.",
    )  # fmt: skip
    rate_burst: int = Field(
        0, ge=0, le=RATE_BURST_MAX,
        description="Requests that such a caller may ask at once; 0 for those of one second.",
    )  # fmt: skip
    tls_certificate: Path | None = Field(
        None, description="PEM file of the gateway's certificate and its chain; with it, it speaks TLS only."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")
    tls_key_password: SecretStr | None = Field(None, description="Password of the private key, where it has one.")
    tls_minimum: TlsVersion = Field(TlsVersion.V1_2, description="Oldest version of TLS that is spoken: 1.2 or 1.3.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that sign callers' certificates; with it, every caller needs one.",
    )
    client_scopes: Path | None = Field(
        None, description="JSON file of what callers may ask who show a certificate, by a name in it."
    )

    @property
    def accepted(self) -> frozenset[Credential]:
        """`credentials` as a set."""
        return frozenset(Credential(each) for each in _listed(self.credentials))

    @property
    def default_rate(self) -> ApiRate | None:
        """The rate of callers for whom nothing else is said; None for no limit."""
        if self.rate_per_s == 0:
            return None
        return ApiRate(self.rate_per_s, self.rate_burst or max(1, round(self.rate_per_s)))

    @property
    def algorithms(self) -> frozenset[str]:
        """`jwt_algorithms` as a set."""
        return frozenset(_listed(self.jwt_algorithms))

    @property
    def audiences(self) -> tuple[str, ...]:
        """`jwt_audience` as names."""
        return tuple(_listed(self.jwt_audience or ""))

    @property
    def required_claims(self) -> tuple[tuple[str, str], ...]:
        """`jwt_required` as pairs of claim and value."""
        pairs = (each.partition("=") for each in _listed(self.jwt_required))
        return tuple((name.strip(), value.strip()) for name, _, value in pairs)

    @model_validator(mode="after")
    def _development_is_for_loopback(self) -> Self:
        prefix = prefix_of(type(self))
        if self.development and not is_loopback(self.host):
            raise ValueError(
                f"{prefix}DEVELOPMENT lets anyone in, and {prefix}HOST is `{self.host}`, "
                "which others reach: listen on 127.0.0.1, or leave the development mode and give callers API keys"
            )
        return self

    @model_validator(mode="after")
    def _credentials_are_known_and_complete(self) -> Self:
        prefix = prefix_of(type(self))
        known = [each.value for each in Credential]
        listed = _listed(self.credentials)
        if wrong := [each for each in listed if each not in known]:
            raise ValueError(f"{prefix}CREDENTIALS names `{wrong[0]}`; allowed: {', '.join(known)}")
        if not listed and not self.development:
            raise ValueError(f"{prefix}CREDENTIALS is empty, so nobody could ask; allowed: " + ", ".join(known))
        needed = {
            Credential.JWT: ("jwt_issuer", "jwt_audience"),
            Credential.CLIENT_CERTIFICATE: ("tls_certificate", "tls_client_ca", "client_scopes"),
        }
        for credential, names in needed.items():
            missing = [name for name in names if not getattr(self, name)]
            if credential in self.accepted and missing:
                variables = ", ".join(f"{prefix}{name.upper()}" for name in missing)
                raise ValueError(f"{prefix}CREDENTIALS has `{credential}`, which needs {variables}")
        return self

    @model_validator(mode="after")
    def _tokens_can_be_verified(self) -> Self:
        prefix = prefix_of(type(self))
        allowed = ", ".join(ALGORITHMS)
        if wrong := sorted(self.algorithms - set(ALGORITHMS)):
            raise ValueError(f"{prefix}JWT_ALGORITHMS names `{wrong[0]}`; allowed: {allowed}")
        if not self.algorithms:
            raise ValueError(f"{prefix}JWT_ALGORITHMS is empty; allowed: {allowed}")
        for name in ("jwt_issuer", "jwt_keys_url"):
            address = getattr(self, name)
            if address is not None and (reason := why_not_https(address)) is not None:
                raise ValueError(f"{prefix}{name.upper()} is no https:// address: {reason}")
        if any(not name or not value for name, value in self.required_claims):
            raise ValueError(f"{prefix}JWT_REQUIRED is not of the form `claim=value,claim=value`")
        return self

    @model_validator(mode="after")
    def _certificates_come_whole(self) -> Self:
        prefix = prefix_of(type(self))
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(f"{prefix}TLS_CERTIFICATE and {prefix}TLS_KEY are given together or not")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError(f"{prefix}TLS_CLIENT_CA needs {prefix}TLS_CERTIFICATE")
        if self.rate_burst and not self.rate_per_s:
            raise ValueError(f"{prefix}RATE_BURST needs {prefix}RATE_PER_S")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]
