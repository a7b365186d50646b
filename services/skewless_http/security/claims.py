"""From the claims of a verified token to a caller: which endpoints it may ask, and about which entities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skewless.errors import InvalidDefinition, Unauthenticated
from skewless.registry.api_scopes import ANY_ENDPOINT, ApiRate, ApiScope
from skewless_http.security.callers import Caller

SCOPE_PREFIX = "predict:"
ENTITIES_CLAIM = "skewless.entities"
ENDPOINTS_MAX = 200
"""Endpoints that one token may name."""
SUBJECT_CHARACTERS_MAX = 255
"""OpenID Connect Core, section 2."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Where a token says what it may ask.

    `endpoints_claim` holds names of endpoints, or `*`: a list, or a text with spaces. `scope_claim` holds scopes, of
    which `predict:<endpoint>` and `predict:*` count: OAuth's `scope` text, or a list as Entra's `roles` are. The
    claim `skewless.entities` may limit join keys to prefixes, as an API key's scope does.
    """

    endpoints_claim: str
    scope_claim: str
    default_rate: ApiRate | None = None

    def caller(self, claims: Mapping[str, Any]) -> Caller:
        """The caller of verified claims; one that may ask nothing where they name no endpoint.

        Raises Unauthenticated for claims that cannot be understood: a limit that is not read must not be no limit.
        """
        subject = claims["sub"]
        if not (isinstance(subject, str) and 0 < len(subject) <= SUBJECT_CHARACTERS_MAX and subject.isprintable()):
            raise _not_understood("sub", "a text of 1 to 255 printable characters")
        return Caller(f"jwt:{subject}", self._scopes(claims), self.default_rate)

    def _scopes(self, claims: Mapping[str, Any]) -> tuple[ApiScope, ...]:
        named = _texts(claims, self.endpoints_claim)
        scopes = _texts(claims, self.scope_claim)
        named += [scope.removeprefix(SCOPE_PREFIX) for scope in scopes if scope.startswith(SCOPE_PREFIX)]
        if not named:
            return ()
        if len(named) > ENDPOINTS_MAX:
            raise _not_understood(self.endpoints_claim, f"at most {ENDPOINTS_MAX} endpoints")
        endpoints = (ANY_ENDPOINT,) if ANY_ENDPOINT in named else tuple(dict.fromkeys(named))
        try:
            return (ApiScope(endpoints, _entities(claims.get(ENTITIES_CLAIM))),)
        except InvalidDefinition as error:
            reason = f"the token's claims cannot be understood: {error.message[:300]}"
            raise Unauthenticated(reason, hint=_HINT) from error


_HINT = "have the identity provider issue tokens in the form that the gateway's guide to security shows"


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    """A claim's words: of a list, or of a text with spaces. None where the claim is absent."""
    given = claims.get(name)
    if given is None:
        return []
    if isinstance(given, str):
        return given.split()
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return list(given)
    raise _not_understood(name, "a text, or a list of texts")


def _entities(given: object) -> dict[str, tuple[str, ...]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _not_understood(ENTITIES_CLAIM, "an object of lists of prefixes")
    for prefixes in given.values():
        if not (isinstance(prefixes, list) and all(isinstance(each, str) for each in prefixes)):
            raise _not_understood(ENTITIES_CLAIM, "an object of lists of prefixes")
    return {str(key): tuple(prefixes) for key, prefixes in given.items()}


def _not_understood(claim: str, allowed: str) -> Unauthenticated:
    return Unauthenticated(f"the token's claim `{claim}` cannot be understood; allowed: {allowed}", hint=_HINT)
