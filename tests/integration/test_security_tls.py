"""TLS with real sockets: who is let in, what is read from a certificate, and newer files without a restart."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from harness.certificates import Authority, CertificateFiles
from skewless.errors import InvalidSettings
from skewless_gateway.grpc_tls import grpc_credentials
from skewless_http.security.peers import PeerCertificate, peer_of
from skewless_http.security.settings import TlsVersion
from skewless_http.security.tls import ServerTls, TlsFiles

SPIFFE = x509.UniformResourceIdentifier("spiffe://shop/booking")
NAMES = (SPIFFE, x509.DNSName("booking.example"), x509.RFC822Name("ann@example.com"))
TIMEOUT_S = 30.0
REFUSED = r"ALERT|hung up|reset|EOF"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "servers", "servers")


@pytest.fixture
def clients(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "clients", "clients")


@pytest.fixture
def files(authority: Authority) -> CertificateFiles:
    return authority.issue_for_loopback()


@contextmanager
def _serving(tls: ServerTls) -> Iterator[int]:
    """A server that answers each connection with the names it was shown, on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                plain, _address = listener.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT_S)
            try:
                with tls.context().wrap_socket(plain, server_side=True) as connection:
                    peer = peer_of(connection)
                    connection.sendall(repr(None if peer is None else peer.names).encode())
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT_S)


def _client(ca: Path, shown: CertificateFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def _ask(port: int, context: ssl.SSLContext) -> str:
    """What the server answers. Raises OSError where it lets nobody in; with TLS 1.3 only the reading tells."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        if not (answer := connection.recv(4_096)):
            raise ConnectionError("it hung up")
        return answer.decode()


def test_without_an_authority_of_callers_nobody_is_asked_for_a_certificate(
    authority: Authority, files: CertificateFiles
) -> None:
    with _serving(ServerTls(TlsFiles(files.certificate, files.key))) as port:
        assert _ask(port, _client(authority.ca)) == "None"


@pytest.mark.parametrize("minimum", list(TlsVersion))
def test_a_version_that_is_too_old_is_not_spoken(
    authority: Authority, files: CertificateFiles, minimum: TlsVersion
) -> None:
    old = _client(authority.ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with _serving(ServerTls(TlsFiles(files.certificate, files.key, minimum=minimum))) as port:
        if minimum is TlsVersion.V1_2:
            assert _ask(port, old) == "None"
        else:
            with pytest.raises(OSError, match="PROTOCOL_VERSION"):
                _ask(port, old)
        assert _ask(port, _client(authority.ca)) == "None"


def test_with_an_authority_of_callers_each_shows_a_certificate_of_it(
    authority: Authority, clients: Authority, files: CertificateFiles, tmp_path: Path
) -> None:
    good = clients.issue("booking", *NAMES)
    strangers = Authority(tmp_path / "strangers", "clients").issue("booking", *NAMES)
    expired = clients.issue("expired", *NAMES, valid=-timedelta(days=1))
    with _serving(ServerTls(TlsFiles(files.certificate, files.key, clients.ca))) as port:
        assert _ask(port, _client(authority.ca, good)) == "('spiffe://shop/booking', 'booking.example')"
        for shown in (None, strangers, expired):
            with pytest.raises(OSError, match=REFUSED):
                _ask(port, _client(authority.ca, shown))


async def test_newer_files_are_taken_into_use_and_broken_ones_are_not(
    authority: Authority, clients: Authority, files: CertificateFiles, tmp_path: Path
) -> None:
    tls = ServerTls(TlsFiles(files.certificate, files.key, clients.ca))
    shown = _client(authority.ca, clients.issue("booking", *NAMES))
    with _serving(tls) as port:
        before = tls.context()
        await tls.look()
        assert tls.context() is before
        assert 0 < tls.left_s() < timedelta(days=21).total_seconds()

        files.key.write_text("half a ke")
        await tls.look()
        assert tls.context() is before
        assert _ask(port, shown)

        files.certificate.unlink()
        await tls.look()
        assert tls.context() is before

        renewed = authority.issue_for_loopback("server", valid=timedelta(days=25))
        assert renewed == files
        await tls.look()
        assert tls.context() is not before
        assert tls.left_s() > timedelta(days=21).total_seconds()
        assert _ask(port, shown)


async def test_an_authority_of_callers_that_was_replaced_lets_its_callers_in_no_more(
    authority: Authority, clients: Authority, files: CertificateFiles, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    in_force = tmp_path / "in_force.pem"
    in_force.write_bytes(clients.ca.read_bytes())
    tls = ServerTls(TlsFiles(files.certificate, files.key, in_force))
    first = _client(authority.ca, clients.issue("booking", *NAMES))
    second = _client(authority.ca, other.issue("booking", *NAMES))
    with _serving(tls) as port:
        assert _ask(port, first)
        replacement = tmp_path / "replacement.pem"
        replacement.write_bytes(other.ca.read_bytes())
        replacement.replace(in_force)
        await tls.look()
        assert _ask(port, second)
        with pytest.raises(OSError, match=REFUSED):
            _ask(port, first)


def test_files_that_cannot_be_used_refuse_to_start_and_nobody_is_asked_for_a_password(
    authority: Authority, files: CertificateFiles, tmp_path: Path
) -> None:
    sealed = authority.issue("sealed", password=b"open sesame")
    other = authority.issue("other")
    for certificate, key in (
        (sealed.certificate, sealed.key),
        (files.certificate, other.key),
        (tmp_path / "none.pem", files.key),
        (files.key, files.certificate),
    ):
        with pytest.raises(InvalidSettings, match="cannot be used"):
            ServerTls(TlsFiles(certificate, key))
    assert ServerTls(TlsFiles(sealed.certificate, sealed.key, password=lambda: "open sesame")).left_s() > 0


def _answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
    peer = PeerCertificate.of_grpc(context.auth_context())
    return repr(None if peer is None else peer.names).encode()


@contextmanager
def _serving_grpc(tls: ServerTls) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.method_handlers_generic_handler("test", {"Ask": grpc.unary_unary_rpc_method_handler(_answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("127.0.0.1:0", grpc_credentials(tls))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(TIMEOUT_S)


def _ask_grpc(address: str, ca: Path, shown: CertificateFiles | None = None) -> str:
    key, chain = (None, None) if shown is None else (shown.key.read_bytes(), shown.certificate.read_bytes())
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, chain)
    with grpc.secure_channel(address, credentials) as channel:
        answer: bytes = channel.unary_unary("/test/Ask")(b"", timeout=TIMEOUT_S)
        return answer.decode()


async def test_grpc_asks_for_the_same_certificates_and_takes_newer_ones(
    authority: Authority, clients: Authority, tmp_path: Path
) -> None:
    files = authority.issue_for_loopback()
    tls = ServerTls(TlsFiles(files.certificate, files.key, clients.ca))
    shown = clients.issue("booking", *NAMES)
    with _serving_grpc(tls) as address:
        assert "('spiffe://shop/booking', 'booking.example'" in _ask_grpc(address, authority.ca, shown)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            _ask_grpc(address, authority.ca)
        newer = Authority(tmp_path / "newer", "newer")
        renewed = newer.issue_for_loopback()
        renewed.certificate.replace(files.certificate)
        renewed.key.replace(files.key)
        await tls.look()
        assert "booking" in _ask_grpc(address, newer.ca, shown)


def test_grpc_without_authorities_of_callers_asks_for_none(authority: Authority, files: CertificateFiles) -> None:
    with _serving_grpc(ServerTls(TlsFiles(files.certificate, files.key))) as address:
        assert _ask_grpc(address, authority.ca) == "None"
