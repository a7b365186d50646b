"""The same TLS for gRPC, which has a library of its own for it. It is asked for newer files with every handshake."""

import grpc
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from skewless.errors import SkewlessError
from skewless_http.security.tls import ServerTls, TlsFiles


def grpc_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Credentials of a gRPC server with the certificates that are in force. Oldest version: that of the library."""
    first = _configuration(tls.files)
    in_force = tls.context()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal in_force
        context = tls.context()
        if context is in_force:
            return None
        try:
            configuration = _configuration(tls.files)
        except (OSError, ValueError, SkewlessError):
            return None  # being replaced at this moment: the next handshake asks again
        in_force = context
        return configuration

    require = tls.files.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(first, newer, require_client_authentication=require)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    password = files.password().encode() or None
    key = load_pem_private_key(files.key.read_bytes(), password)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    authorities = None if files.client_ca is None else files.client_ca.read_bytes()
    return grpc.ssl_server_certificate_configuration([(plain, files.certificate.read_bytes())], authorities)
