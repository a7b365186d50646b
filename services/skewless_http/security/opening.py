"""Builds the guard that the settings ask for."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.adapters.jwks_rules import TokenRules
from skewless.limits import ROUTE_POLL_S
from skewless.timestamps import SECOND_US, Micros
from skewless_http.security.callers import anonymous
from skewless_http.security.claims import ClaimRules
from skewless_http.security.client_scopes import ClientScopes
from skewless_http.security.guard import Guard
from skewless_http.security.key_follower import KeyFollower, KeyReader
from skewless_http.security.keys_copy import KeysCopy
from skewless_http.security.metrics import SecurityMetrics
from skewless_http.security.provider_copy import ProviderCopy
from skewless_http.security.rate_limits import SharedRates
from skewless_http.security.settings import Credential, SecuritySettings

if TYPE_CHECKING:
    from skewless_http.security.tokens import Tokens

_LOGGER = logging.getLogger(__name__)


def open_guard(
    settings: SecuritySettings,
    reader: KeyReader,
    *,
    state: Path,
    metrics: SecurityMetrics,
    now: Callable[[], Micros],
) -> Guard:
    """The guard of one gateway process; nothing is asked of anyone before `run`.

    `state` is the folder of the gateway's own copies, which all workers of a machine share. Raises InvalidSettings
    for a file that cannot be read.
    """
    rate = settings.default_rate
    accepted = settings.accepted
    keys = None
    if Credential.API_KEY in accepted:
        keys = KeyFollower(reader, poll_s=ROUTE_POLL_S, now=now, copy=KeysCopy(state), default_rate=rate)
    tokens = _tokens(settings, state, now=now) if Credential.JWT in accepted else None
    clients = None
    if Credential.CLIENT_CERTIFICATE in accepted:
        assert settings.client_scopes is not None, "the settings ask for it with this credential"
        clients = ClientScopes.read(settings.client_scopes, default_rate=rate)
    if settings.development:
        _LOGGER.warning("DEVELOPMENT MODE: whoever reaches %s may ask anything, without a credential", settings.host)
    _watch(metrics, keys, tokens, now)
    return Guard(
        SharedRates.open(state),
        metrics,
        anonymous=anonymous(rate) if settings.development else None,
        keys=keys,
        tokens=tokens,
        clients=clients,
    )


def _tokens(settings: SecuritySettings, state: Path, *, now: Callable[[], Micros]) -> "Tokens":
    # Only a gateway that takes tokens loads what verifies them.
    from skewless.adapters.jwks_source import JwksSource
    from skewless_http.security.tokens import Tokens

    assert settings.jwt_issuer is not None, "the settings ask for it with this credential"
    return Tokens(
        JwksSource(settings.jwt_issuer, settings.jwt_keys_url, settings.jwt_ca),
        TokenRules(
            issuer=settings.jwt_issuer,
            audiences=settings.audiences,
            algorithms=settings.algorithms,
            leeway_s=settings.jwt_leeway_s,
            required=settings.required_claims,
        ),
        ClaimRules(settings.jwt_endpoints_claim, settings.jwt_scope_claim, settings.default_rate),
        now=now,
        copy=ProviderCopy(state, settings.jwt_issuer),
    )


def _watch(
    metrics: SecurityMetrics, keys: KeyFollower | None, tokens: "Tokens | None", now: Callable[[], Micros]
) -> None:
    if keys is not None:
        metrics.watch_keys(lambda: (now() - (keys.state.read_time or 0)) / SECOND_US)
    if tokens is not None:
        metrics.watch_provider(lambda: time.monotonic() - tokens.state.fetched_s)
