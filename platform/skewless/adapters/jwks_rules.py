"""What the gateway asks of an identity provider and its tokens; knows no library, so that settings can be checked
without loading one."""

from dataclasses import dataclass
from urllib.parse import urlsplit

IDENTITY_PROVIDER = "identity provider"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key. With `HS…` whoever can verify could sign, and `none` is no signature."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What every token must be: of this issuer, for one of these audiences, signed by one of these algorithms.

    `leeway_s` is how far clocks may differ. `required` gives claims and the value each must have, or hold in a list.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    leeway_s: float
    required: tuple[tuple[str, str], ...] = ()


def why_not_https(address: str) -> str | None:
    """What is wrong with an address that must be an https one with a host and no user; None where nothing is.

    >>> why_not_https("https://login.example.com/realms/shop")
    >>> why_not_https("http://login.example.com")
    'its scheme is `http`'
    """
    try:
        parts = urlsplit(address)
        _port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme != "https":
        return f"its scheme is `{parts.scheme}`"
    if not parts.hostname or parts.username is not None or parts.fragment:
        return "it has no host, or a user or a fragment"
    return None
