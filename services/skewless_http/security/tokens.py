"""Tokens of an identity provider: verified once, then remembered until they expire or the provider's keys change."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from skewless.adapters.jwks_rules import IDENTITY_PROVIDER, TokenRules
from skewless.adapters.jwks_verification import KeySet, UnverifiedToken, read_token, verify
from skewless.errors import Overloaded, SkewlessError, Unauthenticated, Unavailable
from skewless.limits import (
    JWKS_AGE_MAX_S,
    JWKS_MISS_GAP_S,
    JWKS_REFRESH_S,
    RETRY_AFTER_S,
    TOKEN_VERIFICATIONS_PER_S_MAX,
    TOKENS_KNOWN_MAX,
)
from skewless.timestamps import SECOND_US, Micros
from skewless_http.polling import Polling
from skewless_http.security.budget import Budget
from skewless_http.security.callers import Caller
from skewless_http.security.claims import ClaimRules
from skewless_http.security.one_attempt import OneAttempt
from skewless_http.security.provider_copy import CopiedKeys, ProviderCopy

_FAR_S = 2**40
"""Some 30,000 years: what expires later expires then."""
_LOGGER = logging.getLogger(__name__)


class Source(Protocol):
    """Where the key set is; `adapters.jwks_source.JwksSource` is one."""

    def fetch(self) -> bytes:
        """The key set as JSON text; blocks. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """What is known of the provider's keys; replaced as a whole. `keys` None: never fetched, or too long ago."""

    keys: KeySet | None = None
    fetched_s: float = 0.0
    """On the monotonic clock."""
    error: str = ""


class Tokens:
    """Verifies tokens. Fetching is one attempt for everyone, and never oftener than JWKS_MISS_GAP_S allows."""

    def __init__(
        self,
        source: Source,
        rules: TokenRules,
        claims: ClaimRules,
        *,
        now: Callable[[], Micros],
        copy: ProviderCopy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = ProviderKeys()
        self._source = source
        self._rules = rules
        self._claims = claims
        self._now = now
        self._monotonic = monotonic
        self._known: dict[bytes, tuple[Caller, int]] = {}
        """By the token's hash: who it is, and when it expires (µs)."""
        self._budget = Budget(per_s=TOKEN_VERIFICATIONS_PER_S_MAX)
        self._copy = copy
        self._fetching = OneAttempt(self.refresh)
        self._tried_s: float | None = None
        self._polling = Polling(self._refresh_when_due, every_s=JWKS_MISS_GAP_S, what="fetching the provider's keys")

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        await self._polling.run()

    def known(self, token: bytes) -> Caller | None:
        """Whose token this is, None where it was not verified yet or has expired."""
        found = self._known.get(blake2b(token).digest())
        if found is None or self._now() >= found[1]:
            return None
        return found[0]

    async def verify(self, token: bytes) -> Caller:
        """Whose token this is. Raises Unauthenticated; Unavailable while no keys of the provider are known;
        Overloaded where more signatures are to be checked than one gateway does in a second.
        """
        read = read_token(token, self._rules)
        keys = self.state.keys or await self._first_keys()
        key = keys.find(read)
        if key is None:
            keys = await self._newer_keys(keys, read)
            key = keys.find(read)
        if key is None:
            raise Unauthenticated(
                "the token is signed by a key that the identity provider does not publish",
                hint="get a new token; after a change of keys, within a few seconds",
            )
        if not self._budget.take():
            raise Overloaded(
                "token verification",
                f"more than {TOKEN_VERIFICATIONS_PER_S_MAX} new tokens came within a second",
                retry_after_s=RETRY_AFTER_S,
                hint="use a token until it expires; one that is known is not verified again",
            )
        claims = verify(read, key, self._rules)
        caller = self._claims.caller(claims)
        if keys is self.state.keys:
            self._remember(token, caller, int(min(claims["exp"], _FAR_S) + self._rules.leeway_s) * SECOND_US)
        return caller

    def close(self) -> None:
        """Give up a fetch that is under way."""
        self._fetching.cancel()

    async def refresh(self) -> None:
        """Fetch the keys now. A failure never takes away keys, before they are JWKS_AGE_MAX_S old."""
        self._tried_s = self._monotonic()
        try:
            document = await asyncio.to_thread(self._source.fetch)
            keys = KeySet.parse(document, self._rules.algorithms)
        except SkewlessError as error:
            await self._go_on_without(self.state, error)
            return
        before = self.state.keys
        if before is None or before.digest != keys.digest:
            _LOGGER.info("%d keys of the identity provider are in use", len(keys))
            self._replace(ProviderKeys(keys, self._monotonic()))
        else:
            self._replace(ProviderKeys(before, self._monotonic()))
        if self._copy is not None:
            await asyncio.to_thread(self._copy.save, CopiedKeys(document, self._now()))

    async def _go_on_without(self, before: ProviderKeys, error: SkewlessError) -> None:
        if error.message != before.error:
            _LOGGER.warning("the identity provider's keys cannot be fetched: %s", error.message)
        keys, fetched_s = before.keys, before.fetched_s
        if keys is None and not before.error and self._copy is not None:
            keys, fetched_s = await self._copied(self._copy)
        is_old = self._monotonic() - fetched_s > JWKS_AGE_MAX_S
        self._replace(ProviderKeys(None if is_old else keys, fetched_s, error.message))

    async def _copied(self, copy: ProviderCopy) -> tuple[KeySet | None, float]:
        """The keys of an earlier process, and when they were fetched on this one's clock."""
        copied = await asyncio.to_thread(copy.load)
        if copied is None:
            return None, 0.0
        age_s = max(0, self._now() - copied.fetched_time) / SECOND_US
        try:
            return KeySet.parse(copied.document, self._rules.algorithms), self._monotonic() - age_s
        except SkewlessError:
            return None, 0.0  # of settings that took other algorithms

    def _replace(self, after: ProviderKeys) -> None:
        """Tokens are forgotten with the keys they were verified by: one of them may have been taken back."""
        if after.keys is not self.state.keys:
            self._known.clear()
        self.state = after

    async def _refresh_when_due(self) -> None:
        age_s = self._monotonic() - self.state.fetched_s
        if self.state.keys is None or self.state.error or age_s >= JWKS_REFRESH_S:
            await self._fetching.start_or_join()

    async def _first_keys(self) -> KeySet:
        if self._may_try():
            await self._fetching.start_or_join()
        else:
            await self._fetching.join()
        if self.state.keys is None:
            raise Unavailable(IDENTITY_PROVIDER, self.state.error or "its keys have not been fetched yet")
        return self.state.keys

    async def _newer_keys(self, keys: KeySet, token: UnverifiedToken) -> KeySet:
        """The keys after another look, where one may be taken; a key id that nobody knows is no reason for many."""
        if token.key_id is not None and self._may_try():
            await self._fetching.start_or_join()
        else:
            await self._fetching.join()
        return self.state.keys or keys

    def _may_try(self) -> bool:
        return self._tried_s is None or self._monotonic() - self._tried_s >= JWKS_MISS_GAP_S

    def _remember(self, token: bytes, caller: Caller, expires: int) -> None:
        if len(self._known) >= TOKENS_KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[blake2b(token).digest()] = caller, expires
