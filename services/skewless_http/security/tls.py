"""The wire: TLS with the gateway's certificate and, where asked for, the callers' own. Newer files need no restart.

A context is asked for with every connection, so a certificate that was renewed, or an authority that was taken back,
counts from the next connection on. Files that do not fit together, as while they are being replaced, change nothing.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from skewless.errors import InvalidSettings
from skewless.limits import TLS_LOOK_S
from skewless_http.polling import Polling
from skewless_http.security.settings import SecuritySettings, TlsVersion

_VERSIONS: Final = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good. Every one of them keeps what was said secret after a key is lost."""
_LOGGER = logging.getLogger(__name__)
_Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where everything is. `client_ca` None: callers need no certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    password: Callable[[], str] = str
    minimum: TlsVersion = TlsVersion.V1_2

    def load(self) -> ssl.SSLContext:
        """A context for one server. Raises InvalidSettings for files that cannot be read or do not fit together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.minimum]
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a function, OpenSSL asks whoever sits at the terminal for the password of an encrypted key.
            context.load_cert_chain(self.certificate, self.key, self.password)
            if self.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.client_ca)
                # A resumed session would not have its caller's certificate verified anew.
                context.num_tickets = 0
        except (OSError, ssl.SSLError) as error:
            listed = ", ".join(f"`{path}`" for path in (self.certificate, self.key, self.client_ca) if path)
            raise InvalidSettings(
                f"the certificates in {listed} cannot be used: {error}",
                hint="give PEM files: the certificate with its chain, its private key (with "
                "SKEWLESS_GATEWAY_TLS_KEY_PASSWORD where it is encrypted), and the authorities of callers",
            ) from error
        return context

    def seen(self) -> _Seen:
        """Another one when a file was replaced. Raises OSError where one is not there."""
        stats = [path.stat() for path in (self.certificate, self.key, self.client_ca) if path is not None]
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats)


class ServerTls:
    """The context in force, and the watch over its files."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises InvalidSettings for files that cannot be used."""
        self.files = files
        self._context = files.load()
        self._seen = files.seen()
        self._expires = _expiry(files.certificate)
        self._told = ""
        self._polling = Polling(self.look, every_s=TLS_LOOK_S, what="following the certificate's files")

    def context(self) -> ssl.SSLContext:
        """What the next connection is to be made with."""
        return self._context

    def left_s(self) -> float:
        """Seconds until the certificate in force expires, negative where it has."""
        return (self._expires - datetime.now(UTC)).total_seconds()

    async def run(self) -> None:
        """Look for newer files until cancelled."""
        await self._polling.run()

    async def look(self) -> None:
        """Take newer files into use, where they are good."""
        try:
            seen = await asyncio.to_thread(self.files.seen)
            if seen == self._seen:
                return
            context = await asyncio.to_thread(self.files.load)
            expires = await asyncio.to_thread(_expiry, self.files.certificate)
        except (OSError, InvalidSettings) as error:
            if (told := str(error)) != self._told:
                _LOGGER.warning("newer certificates are not taken into use: %s", told)
                self._told = told
            return
        self._context, self._seen, self._expires, self._told = context, seen, expires, ""
        _LOGGER.info("newer certificates are in use; the gateway's own expires at %s", expires.isoformat())


def open_tls(settings: SecuritySettings) -> ServerTls | None:
    """What the settings ask for, None for no TLS. Raises InvalidSettings for files that cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    secret = settings.tls_key_password
    return ServerTls(
        TlsFiles(
            settings.tls_certificate,
            settings.tls_key,
            settings.tls_client_ca,
            password=str if secret is None else secret.get_secret_value,
            minimum=settings.tls_minimum,
        )
    )


def _expiry(certificate: Path) -> datetime:
    # Only a gateway that speaks TLS loads it.
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError as error:
        raise InvalidSettings(f"the certificate in `{certificate}` cannot be read: {error}") from error
