"""From the claims of a verified token to a caller: which endpoints it may ask, and about which entities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skewless.errors import InvalidDefinition, Unauthenticated
from skewless.registry.api_scopes import ANY, ANY_ENDPOINT, ApiRate, ApiScope, may_be_brought
from skewless_http.security.callers import Caller

SCOPE_PREFIX = "predict:"
FEATURES_PREFIX, EVENTS_PREFIX = "features:", "events:"
"""Of scopes that name feature views and streams that rows may be brought for."""
CREATED_TIME_SCOPE = "features.created-time"
"""The scope of who may say when rows became known."""
ENTITIES_CLAIM = "skewless.entities"
ENDPOINTS_MAX = 200
"""Endpoints that one token may name."""
SUBJECT_CHARACTERS_MAX = 255
"""OpenID Connect Core, section 2."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Where a token says what it may ask.

    `endpoints_claim` holds names of endpoints, or `*`: a list, or a text with spaces. `scope_claim` holds scopes, of
    which `predict:<endpoint>`, `features:<view>`, `events:<stream>` (each also with `*`) and `features.created-time`
    count: OAuth's `scope` text, or a list as Entra's `roles` are. Words of other services may begin alike
    (`events:read:all`): behind `features:` and `events:` what can be no name of a view or stream allows nothing. The
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
        scopes = _texts(claims, self.scope_claim)
        named = [*_texts(claims, self.endpoints_claim), *_behind(SCOPE_PREFIX, scopes)]
        features, events = _brought(FEATURES_PREFIX, scopes), _brought(EVENTS_PREFIX, scopes)
        if not (named or features or events):
            return ()
        if len(named) + len(features) + len(events) > ENDPOINTS_MAX:
            raise _not_understood(self.endpoints_claim, f"at most {ENDPOINTS_MAX} endpoints, feature views and streams")
        created_time = bool(features) and CREATED_TIME_SCOPE in scopes
        try:
            entities = _entities(claims.get(ENTITIES_CLAIM))
            endpoints, views, streams = _once(named, ANY_ENDPOINT), _once(features, ANY), _once(events, ANY)
            return (ApiScope(endpoints, entities, views, streams, created_time),)
        except InvalidDefinition as error:
            reason = f"the token's claims cannot be understood: {error.message[:300]}"
            raise Unauthenticated(reason, hint=_HINT) from error


_HINT = "have the identity provider issue tokens in the form that the gateway's guide to security shows"


def _behind(prefix: str, scopes: list[str]) -> list[str]:
    """What the scopes with a prefix name."""
    return [scope.removeprefix(prefix) for scope in scopes if scope.startswith(prefix)]


def _brought(prefix: str, scopes: list[str]) -> list[str]:
    """What the scopes with a prefix name of feature views or streams, each once; words of other services are not."""
    return list(dict.fromkeys(name for name in _behind(prefix, scopes) if may_be_brought(name)))


def _once(names: list[str], everything: str) -> tuple[str, ...]:
    return (everything,) if everything in names else tuple(dict.fromkeys(names))


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
