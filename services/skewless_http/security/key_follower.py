"""Keeps the API keys that are in force at hand: read from the registry, found by the hash of what a caller sent."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Protocol

from skewless.canonical_json import Digest
from skewless.errors import SkewlessError, Unauthenticated, Unavailable
from skewless.limits import KEY_LOOKUPS_AT_ONCE_MAX, KEY_LOOKUPS_PER_S_MAX
from skewless.registry.api_keys import SECRET_PREFIX, ApiKeyRecord, hash_of
from skewless.registry.api_scopes import ApiRate
from skewless.timestamps import Micros
from skewless_http.polling import Polling
from skewless_http.security.budget import Budget
from skewless_http.security.callers import Caller
from skewless_http.security.keys_copy import KeysCopy
from skewless_http.security.one_attempt import OneAttempt

API_KEYS = "API keys"
_SECRET = re.compile(re.escape(SECRET_PREFIX.encode()) + rb"[A-Za-z0-9_-]{43}")
_LOGGER = logging.getLogger(__name__)


class KeyReader(Protocol):
    """Where API keys are read; `registry.repository.Registry` is one. Every method may raise Unavailable."""

    def api_keys_version(self) -> tuple[int, int, int]:
        """Another one after every change of keys."""
        ...

    def api_keys(self) -> tuple[ApiKeyRecord, ...]:
        """Every key that is not revoked."""
        ...

    def api_key_by_hash(self, kept: Digest) -> ApiKeyRecord | None:
        """The key whose secret has that hash."""
        ...


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key in force, and the caller that it makes of whoever has its secret."""

    record: ApiKeyRecord
    caller: Caller
    expires: Micros | None
    """The record's: None for never. A field of its own, since every request asks for it."""

    @classmethod
    def of(cls, record: ApiKeyRecord, caller: Caller) -> "KnownKey":
        """A key that is not revoked."""
        return cls(record, caller, record.expires_time)


@dataclass(frozen=True, slots=True)
class KeysState:
    """What is known of the keys; replaced as a whole. `version` None: never read, though perhaps copied."""

    by_hash: Mapping[str, KnownKey] | None = None
    version: tuple[int, int, int] | None = None
    error: str = ""
    read_time: Micros | None = None
    """When the registry last said so."""


class KeyFollower:
    """Follows the registry's keys. A failure never takes away what is known, so a revocation waits for the registry.

    A lookup compares hashes of 256 random bits: how long it takes says nothing about a secret.
    """

    def __init__(
        self,
        reader: KeyReader,
        *,
        poll_s: float,
        now: Callable[[], Micros],
        copy: KeysCopy | None = None,
        default_rate: ApiRate | None = None,
    ) -> None:
        self.state = KeysState()
        self._by_digest: dict[bytes, KnownKey] = {}
        """Those of `state`, by the hash as bytes."""
        self._reader = reader
        self._now = now
        self._copy = copy
        self._default_rate = default_rate
        self._first_read = OneAttempt(self.refresh)
        self._looking = 0
        self._lookups = Budget(per_s=KEY_LOOKUPS_PER_S_MAX)
        self._polling = Polling(self.refresh, every_s=poll_s, what="following the API keys")

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        await self._polling.run()

    def wake(self) -> None:
        """Look at once: the registry changed."""
        self._polling.wake()

    def known(self, secret: bytes) -> Caller | None:
        """Who has this secret, None where no key in force is known to."""
        found = self._by_digest.get(sha256(secret).digest())
        if found is None or (found.expires is not None and self._now() >= found.expires):
            return None
        return found.caller

    async def find(self, secret: bytes) -> Caller:
        """Who has this secret, also where the key was made a moment ago.

        Raises Unauthenticated, and Unavailable while no keys could be read since this machine's first start.
        """
        if not _SECRET.fullmatch(secret):
            raise _unknown("this is no API key: it has not the form of one")
        kept = hash_of(secret.decode("ascii"))
        if self.state.by_hash is None and not self.state.error:
            await self._first_read.start_or_join()
        found = (self.state.by_hash or {}).get(kept)
        if found is None and self._looking < KEY_LOOKUPS_AT_ONCE_MAX and self._lookups.take():
            found = await self._looked_up(kept)
        if found is None and self.state.by_hash is None:
            raise Unavailable(API_KEYS, self.state.error or "they have not been read yet")
        if found is None:
            raise _unknown("no such API key is in force")
        if not found.record.is_valid(self._now()):
            raise _unknown(f"the API key `{found.record.name}` has expired or was revoked")
        return found.caller

    async def refresh(self) -> None:
        """Read the keys if they changed."""
        before = self.state
        try:
            version = await asyncio.to_thread(self._reader.api_keys_version)
            if version == before.version and before.by_hash is not None:
                self._replace(KeysState(before.by_hash, version, "", self._now()))
                return
            records = await asyncio.to_thread(self._reader.api_keys)
        except SkewlessError as error:
            await self._go_on_without(before, error)
            return
        self._replace(KeysState(self._by_hash(records, before.by_hash or {}), version, "", self._now()))
        _log_change(before.by_hash or {}, self.state.by_hash or {})
        if self._copy is not None:
            await asyncio.to_thread(self._copy.save, records)

    async def _go_on_without(self, before: KeysState, error: SkewlessError) -> None:
        known = before.by_hash
        if known is None and self._copy is not None:
            records = await asyncio.to_thread(self._copy.load)
            known = None if records is None else self._by_hash(records, {})
        if error.message != before.error:
            _LOGGER.error("the API keys cannot be followed: %s", error.message)
        self._replace(KeysState(known, before.version, error.message, before.read_time))

    def _replace(self, after: KeysState) -> None:
        if after.by_hash is not self.state.by_hash:
            self._by_digest = {bytes.fromhex(kept): key for kept, key in (after.by_hash or {}).items()}
        self.state = after

    async def _looked_up(self, kept: Digest) -> KnownKey | None:
        self._looking += 1
        try:
            record = await asyncio.to_thread(self._reader.api_key_by_hash, kept)
        except SkewlessError:
            return None  # the follower tells that the registry is away
        finally:
            self._looking -= 1
        if record is None:
            return None
        self._polling.wake()
        return KnownKey.of(record, self._caller(record))

    def _by_hash(self, records: tuple[ApiKeyRecord, ...], before: Mapping[str, KnownKey]) -> Mapping[str, KnownKey]:
        """A caller stays the same as long as its key says the same, with all that was worked out for it."""
        found: dict[str, KnownKey] = {}
        for record in records:
            earlier = before.get(record.hash)
            is_same = earlier is not None and earlier.record == record
            found[record.hash] = earlier if earlier and is_same else KnownKey.of(record, self._caller(record))
        return MappingProxyType(found)

    def _caller(self, record: ApiKeyRecord) -> Caller:
        return Caller(f"key:{record.name}", record.scopes, record.rate or self._default_rate)


def _unknown(reason: str) -> Unauthenticated:
    return Unauthenticated(reason, hint="have a key made with `skewless api-key create`, and send it whole")


def _log_change(before: Mapping[str, KnownKey], after: Mapping[str, KnownKey]) -> None:
    """By name and the beginning of the hash, as the audit trail has them; never by anything of the secret."""
    for kept in after.keys() - before.keys():
        _LOGGER.info("API key %s (%s) is in force", after[kept].record.name, kept[:12])
    for kept in before.keys() - after.keys():
        _LOGGER.info("API key %s (%s) is no longer in force", before[kept].record.name, kept[:12])
