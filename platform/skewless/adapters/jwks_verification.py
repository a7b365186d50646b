"""Reads and verifies JSON Web Tokens (RFC 7519, by the advice of RFC 8725). The one importer of PyJWT.

What a token says of itself chooses nothing but which of the known keys is tried: algorithms come from the settings and
from the key, never from the token alone, and `jku`, `jwk`, `x5c` and `x5u` in its header are not looked at.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from skewless.adapters.jwks_rules import ALGORITHMS, TokenRules
from skewless.canonical_json import digest_bytes
from skewless.errors import InvalidDefinition, Unauthenticated
from skewless.limits import CREDENTIAL_BYTES_MAX, JWKS_KEYS_MAX

RSA_BITS_MIN = 2_048
TOKEN_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt", "application/jwt"})
KEY_ID_CHARACTERS_MAX = 256
_OF_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_OF_RSA = tuple(name for name in ALGORITHMS if name[:2] in {"RS", "PS"})
_DETAIL_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that is well formed, and nothing more. Only what is needed to choose a key is told."""

    text: str
    algorithm: str
    key_id: str | None


class KeySet:
    """The keys of an identity provider that can verify something."""

    def __init__(self, keys: Mapping[tuple[str | None, str], jwt.PyJWK], *, digest: str) -> None:
        """`keys` by key id and algorithm."""
        self._keys = keys
        self.digest = digest

    def __len__(self) -> int:
        return len({key_id for key_id, _ in self._keys})

    @classmethod
    def parse(cls, document: bytes, algorithms: frozenset[str]) -> Self:
        """The keys of a JSON Web Key Set (RFC 7517). Keys that can verify nothing of `algorithms` are left out.

        Raises InvalidDefinition for a text that is no key set, or one without a single usable key.
        """
        try:
            listed = list(json.loads(document)["keys"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidDefinition(f"this is no JSON Web Key Set: {error!r}") from error
        found: dict[tuple[str | None, str], jwt.PyJWK] = {}
        for each in listed[:JWKS_KEYS_MAX]:
            for algorithm in _algorithms_of(each) & algorithms:
                if (key := _key(each, algorithm)) is not None:
                    found.setdefault((each.get("kid"), algorithm), key)
        if not found:
            raise InvalidDefinition(
                f"none of the {len(listed)} keys of the set verifies any of {', '.join(sorted(algorithms))}",
                hint="allow the algorithm that the identity provider signs with",
            )
        return cls(found, digest=digest_bytes(document))

    def find(self, token: UnverifiedToken) -> jwt.PyJWK | None:
        """The one key that may have signed it, None where there is none or, without a key id, more than one."""
        if token.key_id is not None:
            return self._keys.get((token.key_id, token.algorithm))
        fitting = [key for (_, algorithm), key in self._keys.items() if algorithm == token.algorithm]
        return fitting[0] if len(fitting) == 1 else None


def read_token(token: bytes, rules: TokenRules) -> UnverifiedToken:
    """The well-formed token of an allowed algorithm, not verified. Raises Unauthenticated for anything else."""
    if len(token) > CREDENTIAL_BYTES_MAX:
        raise _refused(f"the token has {len(token)} bytes; allowed: at most {CREDENTIAL_BYTES_MAX}")
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        raise _refused("the credential is neither an API key nor a signed token")
    header, _claims = _object(parts[0], "header"), _object(parts[1], "claims")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise _refused(f"tokens signed by {_shown(algorithm)} are not taken; allowed: {_listed(rules.algorithms)}")
    if "crit" in header or "b64" in header:
        raise _refused("the token's header asks for extensions, of which none is known here")
    if not isinstance(kind := header.get("typ", ""), str) or kind.lower() not in TOKEN_TYPES:
        raise _refused(f"the token is of type {_shown(kind)}, which is no access token")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise _refused("the token's key id is no text of usable length")
    return UnverifiedToken(token.decode("ascii"), algorithm, key_id)


def verify(token: UnverifiedToken, key: jwt.PyJWK, rules: TokenRules) -> Mapping[str, Any]:
    """The claims of a token that the key signed and that meets the rules now. Raises Unauthenticated."""
    try:
        claims: dict[str, Any] = _JWT.decode(
            token.text,
            key,
            algorithms=[token.algorithm],
            audience=rules.audiences,
            issuer=rules.issuer,
            leeway=rules.leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except PyJWTError as error:
        raise _refused(_reason(error)) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _refused("the token's claims are not of their types") from error
    if not all(_is_number(claims[name]) for name in ("exp", "iat", "nbf") if name in claims):
        raise _refused("the token's claims are not of their types")
    for name, wanted in rules.required:
        given = claims.get(name)
        if given != wanted and not (isinstance(given, list) and wanted in given):
            raise _refused(f"the token's claim `{name}` is not what this gateway asks for")
    return claims


_JWT = jwt.PyJWT(options={"enforce_minimum_key_length": True})


def _algorithms_of(key: object) -> frozenset[str]:
    """What a public key may verify, by what it says of itself; nothing for private, symmetric and encryption keys."""
    if not isinstance(key, dict) or "d" in key or "k" in key or key.get("use", "sig") != "sig":
        return frozenset()
    operations, key_id = key.get("key_ops"), key.get("kid")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return frozenset()
    if key_id is not None and not isinstance(key_id, str):
        return frozenset()
    kind, curve = key.get("kty"), key.get("crv")
    fits = frozenset(_OF_RSA if kind == "RSA" else _OF_CURVE.get(curve, ()) if isinstance(curve, str) else ())
    said = key.get("alg")
    return fits if said is None else fits & {said} if isinstance(said, str) else frozenset()


def _key(data: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """The key, bound to the one algorithm; None where it cannot be used, which must not cost the others."""
    try:
        found = jwt.PyJWK(data, algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    is_weak = data["kty"] == "RSA" and found.key.key_size < RSA_BITS_MIN
    return None if is_weak else found


def _object(part: bytes, what: str) -> dict[str, Any]:
    """A part's JSON object. Twice the same member, NaN or Infinity is refused: readers differ on what they mean."""
    try:
        text = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _refused(f"the token's {what} cannot be read") from error
    if not isinstance(found, dict):
        raise _refused(f"the token's {what} cannot be read")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member occurs twice")
    if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
        raise ValueError("a number is not finite")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reason(error: PyJWTError) -> str:
    """What was wrong, in words of ours: a library's may quote the token."""
    if isinstance(error, MissingRequiredClaimError):
        return f"the token has no claim `{error.claim}`"
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    return "the token's claims are not valid"


_REASONS: Mapping[type[PyJWTError], str] = {
    ExpiredSignatureError: "the token has expired",
    ImmatureSignatureError: "the token is not valid yet",
    InvalidAudienceError: "the token is for another audience",
    InvalidIssuerError: "the token is of another issuer",
    InvalidSignatureError: "the token's signature is wrong",
}


def _refused(reason: str) -> Unauthenticated:
    return Unauthenticated(reason, hint="get a new token from the identity provider, for this audience")


def _shown(value: object) -> str:
    return f"`{str(value)[:_DETAIL_CHARACTERS_MAX]}`"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
