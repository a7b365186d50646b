"""Who asks, and how often: the first thing that a request meets, before a byte of its body is read.

    known         a credential that is known costs a hash and a look-up
    authenticate  any other: a key made a moment ago, a token to verify, or a refusal
    check_rate    one more of what the caller may ask for

A credential that is given must be good, whatever the mode: a wrong one is never taken for none.
"""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from skewless.errors import Forbidden, RateLimited, SkewlessError, Unauthenticated
from skewless.limits import CREDENTIAL_BYTES_MAX, RATE_ROWS_PER_REQUEST
from skewless.registry.api_keys import SECRET_PREFIX
from skewless_http.security.callers import Caller
from skewless_http.security.client_scopes import ClientScopes
from skewless_http.security.key_follower import KeyFollower
from skewless_http.security.metrics import SecurityMetrics
from skewless_http.security.peers import PeerCertificate
from skewless_http.security.rate_limits import SharedRates
from skewless_http.security.settings import is_loopback

if TYPE_CHECKING:  # only a gateway that takes tokens loads what verifies them
    from skewless_http.security.tokens import Tokens

_BEARER = b"Bearer "
_KEY = _BEARER + SECRET_PREFIX.encode()
_HOW = "send `Authorization: Bearer <API key or token>`; `skewless api-key create` makes a key"


@dataclass(frozen=True, slots=True)
class Guard:
    """One gateway's door. Parts that are None take no credential of their kind.

    `anonymous` is whoever sends none, None where that is refused; it is given in development mode alone.
    """

    rates: SharedRates
    metrics: SecurityMetrics
    anonymous: Caller | None = None
    keys: KeyFollower | None = None
    tokens: "Tokens | None" = None
    clients: ClientScopes | None = None

    def known(self, credential: bytes | None, peer: PeerCertificate | None = None) -> Caller | None:
        """Whoever asks, where that is known without any work; None for whom `authenticate` has to decide on.

        `credential` is what `credential_of` found. It counts before the certificate that was shown.
        """
        if credential is None:
            if peer is not None and self.clients is not None and (found := self.clients.known(peer)) is not None:
                return found
            return self.anonymous
        if credential.startswith(_KEY):
            return None if self.keys is None else self.keys.known(credential[7:])
        if credential.startswith(_BEARER) and self.tokens is not None:
            return self.tokens.known(credential[7:])
        return None

    async def authenticate(self, credential: bytes | None, peer: PeerCertificate | None = None) -> Caller:
        """Whoever asks. Raises Unauthenticated, or Unavailable where whom to believe cannot be known now."""
        try:
            caller = await self._authenticated(credential, peer)
        except SkewlessError as error:
            self.metrics.refused(error.code)
            raise
        self.metrics.authenticated(caller)
        return caller

    def check_host(self, caller: Caller, host: bytes | None) -> None:
        """Raises Forbidden where a page of the web asks a gateway in development mode through its visitor's browser.

        Such a page has its own name resolve to 127.0.0.1 (DNS rebinding), so the name in `Host` gives it away.
        """
        if caller is self.anonymous and host is not None and not _is_local(host):
            raise Forbidden(
                f"a gateway in development mode is not asked by the name `{host[:100].decode('latin-1')}`",
                hint="ask it as 127.0.0.1 or localhost, or leave the development mode",
            )

    def check_rate(self, caller: Caller, cost: int = 1) -> None:
        """Count `cost` requests of the caller. Raises RateLimited where that is more than it may ask for now."""
        try:
            self.rates.check(caller, cost)
        except RateLimited as error:
            self.metrics.refused(error.code)
            raise

    def charge(self, caller: Caller, rows: int) -> None:
        """Count what the rows of a request cost beyond the one that it was let in for; never refuses.

        Each further RATE_ROWS_PER_REQUEST rows begun cost one more. What the caller has not left is its debt: later
        requests wait for it, this one has been read already.
        """
        if rows > RATE_ROWS_PER_REQUEST:
            self.rates.charge(caller, (rows - 1) // RATE_ROWS_PER_REQUEST)

    def forbidden(self, error: Forbidden) -> None:
        """Count a refusal that was found after the door."""
        self.metrics.refused(error.code)

    async def run(self) -> None:
        """Follow the registry and the identity provider until cancelled."""
        followed = [part.run() for part in (self.keys, self.tokens) if part is not None]
        async with asyncio.TaskGroup() as group:
            for each in followed:
                group.create_task(each)

    def wake(self) -> None:
        """The registry changed: look at once."""
        if self.keys is not None:
            self.keys.wake()

    def state(self) -> tuple[bool, str]:
        """Whether callers can be told apart, and what is wrong or unusual; the reason where they cannot."""
        told = ["development mode: whoever reaches this gateway may ask it anything"] if self.anonymous else []
        ok = True
        if self.keys is not None:
            ok = self.keys.state.by_hash is not None or self.anonymous is not None
            told += [self.keys.state.error] if self.keys.state.error else []
            told += ["the API keys have not been read yet"] if not ok and not self.keys.state.error else []
        if self.tokens is not None and self.tokens.state.error:
            told.append(self.tokens.state.error)
        return ok, "; ".join(told)

    def close(self) -> None:
        """Let go of what the parts hold."""
        if self.tokens is not None:
            self.tokens.close()
        self.rates.close()

    async def _authenticated(self, credential: bytes | None, peer: PeerCertificate | None) -> Caller:
        if (caller := self.known(credential, peer)) is not None:
            return caller
        if credential is None:
            raise self._nobody(peer)
        scheme, _, secret = credential.partition(b" ")
        secret = secret.strip(b" ")
        if scheme.lower() != b"bearer" or not secret or len(secret) > CREDENTIAL_BYTES_MAX:
            raise Unauthenticated("the credential is in no form that is taken here", hint=_HOW)
        if secret.startswith(SECRET_PREFIX.encode()):
            if self.keys is None:
                raise Unauthenticated("this gateway takes no API keys", hint=f"it takes {self._taken()}")
            return await self.keys.find(secret)
        if self.tokens is None:
            raise Unauthenticated("the credential is no API key, and this gateway takes no tokens", hint=_HOW)
        return self.tokens.known(secret) or await self.tokens.verify(secret)

    def _nobody(self, peer: PeerCertificate | None) -> Unauthenticated:
        if peer is not None and self.clients is not None:
            shown = ", ".join(f"`{name[:100]}`" for name in peer.names[:3]) or "without a usable name"
            return Unauthenticated(
                f"the client certificate ({shown}) is of nobody that this gateway knows",
                hint="have one of its names added to the file of client scopes",
            )
        return Unauthenticated("no credential was given", was_given=False, hint=_HOW)

    def _taken(self) -> str:
        named = {"API keys": self.keys, "tokens": self.tokens, "client certificates": self.clients}
        return ", ".join(name for name, part in named.items() if part is not None)


@lru_cache(maxsize=64)
def _is_local(host: bytes) -> bool:
    """Whether a `Host` names this machine.

    >>> [_is_local(host) for host in (b"127.0.0.1:8100", b"localhost", b"[::1]:8100", b"evil.example:8100")]
    [True, True, True, False]
    """
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
    return is_loopback(name)


def credential_of(authorization: bytes | None, api_key: bytes | None) -> bytes | None:
    """What a caller's header fields `Authorization` and `X-API-Key` give together; None for no credential.

    >>> credential_of(None, b"skw_abc")
    b'Bearer skw_abc'
    """
    if authorization is not None or api_key is None:
        return authorization
    return _BEARER + api_key
