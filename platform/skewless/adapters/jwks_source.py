"""Fetches an identity provider's public keys over HTTPS: its discovery document, and the key set that it names.

Blocking, for a thread. Certificates are verified, redirects are refused, and time and size are bounded: the answer
decides whom the gateway believes.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from skewless.adapters.jwks_rules import IDENTITY_PROVIDER, why_not_https
from skewless.errors import InvalidSettings, Unavailable
from skewless.limits import JWKS_BYTES_MAX, JWKS_TIMEOUT_S

DISCOVERY_PATH = "/.well-known/openid-configuration"
_CHUNK_BYTES = 16_384


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead away from the host whose certificate was verified, or to no certificate at all."""

    def redirect_request(self, *_redirect: object) -> None:
        """None: the answer is taken for the error that it is here."""


@dataclass(frozen=True, slots=True)
class JwksSource:
    """Where the keys of `issuer` are: at `keys_url`, or where its discovery document says. `ca` None: public ones.

    Raises InvalidSettings for an address that is not https, or a file of authorities that cannot be read.
    """

    issuer: str
    keys_url: str | None = None
    ca: Path | None = None
    timeout_s: float = JWKS_TIMEOUT_S
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (reason := why_not_https(self.keys_url or self.issuer)) is not None:
            raise InvalidSettings(
                f"keys of the identity provider cannot be fetched from `{self.keys_url or self.issuer}`: {reason}",
                hint="give an https:// address; whoever could change the keys on their way could sign tokens",
            )
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise InvalidSettings(
                f"the certificate authorities in `{self.ca}` cannot be read: {error}", hint="give a PEM file"
            ) from error
        handlers = (urllib.request.HTTPSHandler(context=context), _NoRedirects())
        object.__setattr__(self, "_opener", urllib.request.build_opener(*handlers))

    def fetch(self) -> bytes:
        """The key set as JSON text. Raises Unavailable where the provider does not answer, or not with that."""
        deadline_s = time.monotonic() + self.timeout_s
        return self._get(self.keys_url or self._discovered(deadline_s), deadline_s)

    def _discovered(self, deadline_s: float) -> str:
        address = self.issuer.rstrip("/") + DISCOVERY_PATH
        try:
            document: Any = json.loads(self._get(address, deadline_s))
            issuer, keys_url = document["issuer"], document["jwks_uri"]
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(IDENTITY_PROVIDER, f"{address} is no discovery document: {error!r}") from error
        if issuer != self.issuer:
            raise Unavailable(
                IDENTITY_PROVIDER,
                f"{address} is of the issuer {str(issuer)[:200]!r}, not of {self.issuer!r}",
                hint="set SKEWLESS_GATEWAY_JWT_ISSUER to exactly what the provider calls itself",
            )
        named = str(keys_url)
        if (reason := why_not_https(named)) is not None:
            raise Unavailable(IDENTITY_PROVIDER, f"{address} names the key set {named[:200]!r}: {reason}")
        return named

    def _get(self, address: str, deadline_s: float) -> bytes:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._unavailable(address, "it took too long")
        request = urllib.request.Request(address, headers={"Accept": "application/json", "User-Agent": "skewless"})  # noqa: S310  # https, see __post_init__
        try:
            with self._opener.open(request, timeout=left_s) as answer:
                return self._read(answer, address, deadline_s)
        except (OSError, HTTPException, ValueError) as error:  # URLError, HTTPError and time-outs are OSErrors
            raise self._unavailable(address, str(error)) from error

    def _read(self, answer: IO[bytes], address: str, deadline_s: float) -> bytes:
        """Read in pieces, so that one byte now and then ends at the deadline, too."""
        body = bytearray()
        read = getattr(answer, "read1", answer.read)
        while chunk := read(_CHUNK_BYTES):
            body += chunk
            if len(body) > JWKS_BYTES_MAX:
                raise self._unavailable(address, f"it answers more than {JWKS_BYTES_MAX} bytes")
            if time.monotonic() > deadline_s:
                raise self._unavailable(address, "it took too long")
        return bytes(body)

    def _unavailable(self, address: str, reason: str) -> Unavailable:
        return Unavailable(
            IDENTITY_PROVIDER,
            f"{address} cannot be fetched: {reason[:500]}",
            hint="check the address, the network and the provider's certificate",
        )
