"""A gateway process over TLS that knows callers by certificate, by token and by key, with all of it real."""

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from harness.certificates import Authority, CertificateFiles
from harness.identity_provider import AUDIENCE, IdentityProvider, SigningKey, claims, running_provider
from harness.servers import wait_until
from skewless.registry.api_scopes import ApiScope
from skewless.registry.database import engine, upgrade
from skewless.registry.repository import Registry
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import start, tail

SPIFFE = "spiffe://shop/booking"
KEY = SigningKey("one", "RS256")
BOOKING, OTHER = ("booking", 404), ("other", 403)
"""Endpoints that do not exist: who may ask learns so, and who may not learns nothing."""


@dataclass(frozen=True)
class Wire:
    """A running gateway, and what callers need to reach it."""

    url: str
    ca: Path
    clients: Authority
    provider: IdentityProvider
    registry: Registry
    server: CertificateFiles
    authority: Authority

    def ask(self, path: str, shown: CertificateFiles | None, credential: str | None = None) -> httpx.Response:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        with httpx.Client(verify=self.context(shown), timeout=30) as client:
            return client.get(f"{self.url}{path}", headers=headers)

    def context(self, shown: CertificateFiles | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


@pytest.fixture(scope="module")
def booking(wire: Wire) -> CertificateFiles:
    return wire.clients.issue("booking", x509.UniformResourceIdentifier(SPIFFE))


@pytest.fixture(scope="module")
def stranger(wire: Wire) -> CertificateFiles:
    """Signed by the right authority, and named in no file."""
    return wire.clients.issue("stranger", x509.DNSName("stranger.example"))


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("wire")
    authority, clients = Authority(folder / "servers", "servers"), Authority(folder / "clients", "clients")
    server = authority.issue_for_loopback()
    scopes = folder / "scopes.json"
    scopes.write_text(json.dumps({SPIFFE: {"scopes": [{"endpoints": ["booking"]}]}}))
    database_url = f"sqlite:///{folder}/registry.db"
    upgrade(database_url)
    registry = Registry(engine(database_url))
    port, valkey, triton = free_ports(3)
    with running_provider(folder / "provider") as provider:
        provider.publish(KEY)
        environment = {
            "ONLINE_STORE": f"redis://{LOOPBACK}:{valkey}", "TRITON": f"{LOOPBACK}:{triton}",
            "DATABASE_URL": database_url, "ARTIFACTS": str(folder / "artifacts"),
            "PREDICTION_LOG": str(folder / "predictions"), "CREDENTIALS": "api-key,jwt,client-certificate",
            "TLS_CERTIFICATE": str(server.certificate), "TLS_KEY": str(server.key), "TLS_CLIENT_CA": str(clients.ca),
            "CLIENT_SCOPES": str(scopes), "JWT_ISSUER": provider.issuer, "JWT_AUDIENCE": AUDIENCE,
            "JWT_CA": str(provider.ca),
        }  # fmt: skip
        spec = gateway_spec(port=port, environment=environment, logs=folder / "logs")
        process = start(spec)
        made = Wire(f"https://{LOOPBACK}:{port}", authority.ca, clients, provider, registry, server, authority)
        probe = clients.issue("probe", x509.DNSName("probe.example"))
        try:
            wait_until(lambda: _answers(made, probe), f"it answers\n{tail(spec.log_file)}", timeout_s=60)
            yield made
        finally:
            process.stop()
            registry.close()


def _answers(wire: Wire, shown: CertificateFiles) -> bool:
    try:
        return wire.ask("/healthz", shown).status_code == 200
    except httpx.TransportError:
        return False


def _statuses(wire: Wire, shown: CertificateFiles, credential: str | None = None) -> dict[str, int]:
    paths = {name: f"/v1/endpoints/{name}" for name in ("booking", "other")}
    return {name: wire.ask(path, shown, credential).status_code for name, path in paths.items()}


def test_without_a_certificate_nobody_gets_as_far_as_http(wire: Wire) -> None:
    with pytest.raises(httpx.TransportError):
        wire.ask("/healthz", None)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{wire.url.replace('https', 'http')}/healthz", timeout=30)


def test_a_certificate_opens_what_the_file_says_of_its_name(wire: Wire, booking: CertificateFiles) -> None:
    assert _statuses(wire, booking) == dict([BOOKING, OTHER])


def test_a_certificate_of_nobody_known_needs_a_credential_beside_it(wire: Wire, stranger: CertificateFiles) -> None:
    refused = wire.ask("/v1/endpoints", stranger)
    assert refused.status_code == 401
    assert "`stranger.example`" in refused.json()["detail"]
    secret = wire.registry.add_api_key("beside", [ApiScope(("booking",))])
    assert _statuses(wire, stranger, secret) == dict([BOOKING, OTHER])


def test_a_token_opens_what_its_claims_say(wire: Wire, stranger: CertificateFiles) -> None:
    token = KEY.token(claims(wire.provider.issuer, scope="openid predict:booking"))
    assert _statuses(wire, stranger, token) == dict([BOOKING, OTHER])
    other = SigningKey("one", "RS256").token(claims(wire.provider.issuer, scope="predict:*"))
    assert _statuses(wire, stranger, other) == {"booking": 401, "other": 401}


def test_a_wrong_credential_is_not_made_good_by_a_certificate(wire: Wire, booking: CertificateFiles) -> None:
    assert wire.ask("/v1/endpoints", booking, "skw_" + "x" * 43).status_code == 401


def test_over_tls_browsers_are_told_to_use_nothing_else(wire: Wire, booking: CertificateFiles) -> None:
    answers = [wire.ask(path, booking) for path in ("/healthz", "/v1/endpoints", "/v1/endpoints/other", "/docs")]
    assert [each.headers.get("strict-transport-security") for each in answers] == ["max-age=31536000"] * 4


def test_a_renewed_certificate_is_shown_without_a_restart(wire: Wire, booking: CertificateFiles) -> None:
    before = _serial(wire, booking)
    assert wire.authority.issue_for_loopback() == wire.server
    wait_until(lambda: _serial(wire, booking) != before, "the newer certificate is shown", timeout_s=60)
    assert wire.ask("/healthz", booking).status_code == 200


def _serial(wire: Wire, shown: CertificateFiles) -> int:
    with (
        socket.create_connection((LOOPBACK, int(wire.url.rpartition(":")[2])), 30) as plain,
        wire.context(shown).wrap_socket(plain, server_hostname=LOOPBACK) as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number
