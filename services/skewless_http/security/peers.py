"""The certificate that a caller showed when it connected, verified by the TLS library before anything is read."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

NAMES_MAX = 100
"""Names of one certificate that are looked at."""
_NAME_KINDS = ("URI", "DNS")
_GRPC_NAMES = "x509_subject_alternative_name"
_GRPC_VERIFIED = "transport_security_type"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The names in a verified client certificate: URIs first (SPIFFE ids), then DNS names.

    The common name is not read: it is no longer a name for anything (RFC 9525, section 2).
    """

    names: tuple[str, ...]

    @classmethod
    def of_grpc(cls, context: Mapping[str, Sequence[bytes]]) -> Self | None:
        """What gRPC's `auth_context()` tells of it; None where the caller showed none."""
        if b"ssl" not in context.get(_GRPC_VERIFIED, ()) or not context.get("x509_pem_cert"):
            return None
        names = [name.decode("utf-8", "replace") for name in context.get(_GRPC_NAMES, ())]
        return cls(tuple(sorted(names, key=lambda name: "://" not in name)[:NAMES_MAX]))


def peer_of(connection: ssl.SSLObject | ssl.SSLSocket | None) -> PeerCertificate | None:
    """What the caller at the other end showed; None for none, and for a connection without TLS."""
    shown = connection.getpeercert() if connection is not None else None
    return PeerCertificate(_names(shown)) if shown else None


def _names(shown: Mapping[str, Any]) -> tuple[str, ...]:
    found = shown.get("subjectAltName", ())
    return tuple(name for kind in _NAME_KINDS for given, name in found if given == kind)[:NAMES_MAX]
