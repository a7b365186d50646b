"""API keys: made, looked up by the hash of their secret, and revoked. No secret is ever stored.

A secret is 256 random bits, so its plain SHA-256 cannot be turned back by guessing: there is no dictionary of such
secrets, and nothing for a slow hash or a salt to defend. A gateway can afford to hash the secret of every request.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from skewless.canonical_json import Digest, digest_bytes
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.registry.tables import ApiKeyRow
from skewless.registry.transactions import RegistryPart
from skewless.rollout.routes import ENDPOINT_NAME_PATTERN
from skewless.timestamps import Micros, format_timestamp

SECRET_PREFIX = "skw_"  # noqa: S105  # it tells people and secret scanners what they found; it is no secret
SECRET_BYTES = 32
SCOPES_MAX = 50
KEYS_MAX = 10_000
"""Keys in force: every gateway holds all of them in memory and keeps a copy."""


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """One API key without its secret. A key allows what any of its `scopes` allows.

    `expires_time` None: never. `revoked_time` None: not revoked. `rate` None: as often as the gateway's default says.
    """

    hash: Digest
    name: str
    scopes: tuple[ApiScope, ...]
    created_time: Micros
    expires_time: Micros | None = None
    revoked_time: Micros | None = None
    rate: ApiRate | None = None

    def is_valid(self, at: Micros) -> bool:
        """Whether the key opens anything at a moment: not revoked, not expired."""
        return self.revoked_time is None and (self.expires_time is None or at < self.expires_time)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text; of the hash only its beginning, as a name for logs."""
        return {
            "id": self.hash[:12],
            "name": self.name,
            "scopes": [scope.to_json() for scope in self.scopes],
            "rate": None if self.rate is None else self.rate.to_json(),
            "created_time": format_timestamp(self.created_time),
            "expires_time": None if self.expires_time is None else format_timestamp(self.expires_time),
            "revoked_time": None if self.revoked_time is None else format_timestamp(self.revoked_time),
        }


def hash_of(secret: str) -> Digest:
    """What the registry keeps of a secret. Any text has one; only that of a real secret is found."""
    return digest_bytes(secret.encode(errors="surrogatepass"))


class ApiKeys(RegistryPart):
    """The part of the registry that knows API keys.

    When a key was last used is not kept: it would be a write for every request. The prediction log knows.
    """

    def add_api_key(
        self,
        name: str,
        scopes: Sequence[ApiScope],
        *,
        expires_time: Micros | None = None,
        rate: ApiRate | None = None,
        actor: str = "unknown",
        reason: str = "",
    ) -> str:
        """A new key's secret, which is told this once and cannot be read again.

        Raises InvalidDefinition for a bad name, no scope or an expiry in the past; Conflict where a key of that name
        is in force, or KEYS_MAX keys are.
        """
        self._check(name, scopes, expires_time)
        secret = SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        kept = hash_of(secret)
        documents = [scope.to_json() for scope in scopes]
        with self._transactions.write() as session:
            if session.scalar(_in_force(name)) is not None:
                raise Conflict(
                    f"an API key `{name}` is in force",
                    hint="to replace it, make a second key under another name, move its users, then revoke the first",
                )
            in_force = select(func.count()).select_from(ApiKeyRow).where(ApiKeyRow.revoked_time.is_(None))
            if (keys := session.scalar(in_force) or 0) >= KEYS_MAX:
                raise Conflict(
                    f"{keys} API keys are in force; allowed: at most {KEYS_MAX}",
                    hint="revoke keys that nobody uses: `skewless api-key list`",
                )
            session.add(
                ApiKeyRow(
                    hash=kept, name=name, scopes=documents, created_time=self._clock(),
                    expires_time=expires_time, revoked_time=None,
                    rate_per_s=None if rate is None else rate.per_s, rate_burst=None if rate is None else rate.burst,
                )
            )  # fmt: skip
            expires = None if expires_time is None else format_timestamp(expires_time)
            allowed_rate = None if rate is None else rate.to_json()
            detail = {"id": kept[:12], "scopes": documents, "rate": allowed_rate, "expires_time": expires}
            self._audit(session, f"api-key/{name}", "add", actor=actor, reason=reason, detail=detail)
        return secret

    def api_keys(self, *, include_revoked: bool = False) -> tuple[ApiKeyRecord, ...]:
        """Every key, by name and age; revoked ones only where asked for."""
        wanted = select(ApiKeyRow).order_by(ApiKeyRow.name, ApiKeyRow.created_time)
        if not include_revoked:
            wanted = wanted.where(ApiKeyRow.revoked_time.is_(None))
        with self._transactions.read() as session:
            return tuple(_record(row) for row in session.scalars(wanted))

    def api_keys_version(self) -> tuple[int, int, int]:
        """Another one after every change of keys: what a follower compares before it reads all of them.

        Keys are added and revoked, never changed or deleted, so counts tell. The newest key's time tells a database
        that was restored from a backup.
        """
        wanted = select(
            func.count(), func.count(ApiKeyRow.revoked_time), func.coalesce(func.max(ApiKeyRow.created_time), 0)
        ).select_from(ApiKeyRow)
        with self._transactions.read() as session:
            keys, revoked, newest = session.execute(wanted).one()
            return int(keys), int(revoked), int(newest)

    def api_key_by_hash(self, kept: Digest) -> ApiKeyRecord | None:
        """The key whose secret has that hash (`hash_of`), None where there is none. Ask it whether it is valid."""
        with self._transactions.read() as session:
            row = session.get(ApiKeyRow, kept)
            return None if row is None else _record(row)

    def revoke_api_key(self, name: str, *, actor: str = "unknown", reason: str = "") -> None:
        """End a key for good. Raises NotFound where no key of that name is in force."""
        with self._transactions.write() as session:
            row = session.scalar(_in_force(name).with_for_update())
            if row is None:
                others = select(ApiKeyRow.name).where(ApiKeyRow.revoked_time.is_(None)).order_by(ApiKeyRow.name)
                raise NotFound("API key", name, known=tuple(session.scalars(others)))
            row.revoked_time = self._clock()
            detail = {"id": row.hash[:12]}
            self._audit(session, f"api-key/{name}", "revoke", actor=actor, reason=reason, detail=detail)

    def _check(self, name: str, scopes: Sequence[ApiScope], expires_time: Micros | None) -> None:
        if not re.fullmatch(ENDPOINT_NAME_PATTERN, name):
            raise InvalidDefinition(
                f"{name!r} cannot name an API key. Allowed: 1 to 63 of a-z, 0-9 and `-`, first a letter, "
                "not ending in `-`",
                hint="name it after who uses it, such as `booking-service`",
            )
        if not 1 <= len(scopes) <= SCOPES_MAX:
            raise InvalidDefinition(f"API key `{name}` has {len(scopes)} scopes; allowed: 1 to {SCOPES_MAX}")
        if expires_time is not None and expires_time <= self._clock():
            raise InvalidDefinition(f"API key `{name}` would expire in the past, {format_timestamp(expires_time)}")


def _in_force(name: str) -> Any:
    return select(ApiKeyRow).where(ApiKeyRow.name == name, ApiKeyRow.revoked_time.is_(None))


def _record(row: ApiKeyRow) -> ApiKeyRecord:
    return ApiKeyRecord(
        hash=Digest(row.hash),
        name=row.name,
        scopes=tuple(ApiScope.from_json(scope) for scope in row.scopes),
        created_time=Micros(row.created_time),
        expires_time=None if row.expires_time is None else Micros(row.expires_time),
        revoked_time=None if row.revoked_time is None else Micros(row.revoked_time),
        rate=_rate(row),
    )


def _rate(row: ApiKeyRow) -> ApiRate | None:
    """Both columns are filled, or neither: one alone would be half a meaning, and is refused."""
    if row.rate_per_s is None and row.rate_burst is None:
        return None
    return ApiRate.from_json({"per_s": row.rate_per_s, "burst": row.rate_burst})
