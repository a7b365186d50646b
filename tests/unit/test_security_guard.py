"""The door: which credential counts, how keys are followed, and what happens while the registry is away."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from harness.identity_provider import AUDIENCE, SigningKey, claims, key_set
from harness.polling import SOON_S, until
from skewless.adapters.jwks_rules import TokenRules
from skewless.canonical_json import Digest
from skewless.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from skewless.limits import KEY_LOOKUPS_AT_ONCE_MAX, KEY_LOOKUPS_PER_S_MAX
from skewless.registry.api_keys import ApiKeyRecord, hash_of
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.timestamps import Micros
from skewless_http.security.callers import Caller, anonymous
from skewless_http.security.claims import ClaimRules
from skewless_http.security.client_scopes import ClientScopes
from skewless_http.security.guard import Guard, credential_of
from skewless_http.security.key_follower import KeyFollower
from skewless_http.security.keys_copy import KeysCopy
from skewless_http.security.metrics import SecurityMetrics
from skewless_http.security.peers import PeerCertificate, peer_of
from skewless_http.security.rate_limits import SharedRates
from skewless_http.security.tokens import Tokens

ISSUER = "https://login.example.com"
SCOPES = (ApiScope(("flight-delay",), {"tailnum": ("N1",)}),)
NOW = Micros(1_000_000)
SPOILED_HASH = '[{"hash": "xyz", "name": "y", "scopes": [], "created_time": 1, "expires_time": null, "rate": null}]'


def _secret(number: int) -> str:
    return f"skw_{number:043d}"


def _bearer(number: int) -> bytes:
    return f"Bearer {_secret(number)}".encode()


def _record(number: int, **changes: Any) -> ApiKeyRecord:
    return ApiKeyRecord(hash_of(_secret(number)), f"shop-{number}", SCOPES, Micros(1), **changes)


class FakeKeys:
    """Keys in memory. `failure`, where set, is raised instead; `asked` holds what was asked for."""

    def __init__(self, *records: ApiKeyRecord) -> None:
        self.records = list(records)
        self.failure: Unavailable | None = None
        self.asked: list[str] = []
        self.version = 1
        self.hangs: threading.Event | None = None

    def api_keys_version(self) -> tuple[int, int, int]:
        self._ask("version")
        return (self.version, 0, 0)

    def api_keys(self) -> tuple[ApiKeyRecord, ...]:
        self._ask("keys")
        return tuple(self.records)

    def api_key_by_hash(self, kept: Digest) -> ApiKeyRecord | None:
        self._ask("hash")
        if self.hangs is not None:
            self.hangs.wait(SOON_S)
        return next((record for record in self.records if record.hash == kept), None)

    def change(self, *records: ApiKeyRecord) -> None:
        self.records = list(records)
        self.version += 1

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure


def _follower(reader: FakeKeys, folder: Path | None = None, now: Callable[[], Micros] = lambda: NOW) -> KeyFollower:
    return KeyFollower(reader, poll_s=0.2, now=now, copy=None if folder is None else KeysCopy(folder))


def _guard(folder: Path, **parts: Any) -> Guard:
    return Guard(SharedRates.open(folder), SecurityMetrics(CollectorRegistry()), **parts)


async def test_a_key_is_known_once_the_keys_were_read(tmp_path: Path) -> None:
    follower = _follower(FakeKeys(_record(1)))
    guard = _guard(tmp_path, keys=follower)
    assert guard.known(_bearer(1)) is None
    caller = await guard.authenticate(_bearer(1))
    assert guard.known(_bearer(1)) is caller
    assert (caller.id, caller.scopes) == ("key:shop-1", SCOPES)


@pytest.mark.parametrize(
    "credential",
    [
        _bearer(2), b"Bearer skw_", b"Bearer " + b"skw_" + b"x" * 500, b"Bearer skw_%00", b"Bearer", b"", b"Basic abc",
        b"Bearer \xff\xfe", _secret(1).encode(), b"Bearer  " + _secret(1).upper().encode(), b"bearer",
        b"Bearer " + b"a" * 10_000, b"Bearer a.b.c",
    ],
)  # fmt: skip
async def test_what_is_no_key_in_force_lets_nobody_in_not_even_in_development_mode(
    tmp_path: Path, credential: bytes
) -> None:
    for anybody in (None, anonymous()):
        guard = _guard(tmp_path, keys=_follower(FakeKeys(_record(1))), anonymous=anybody)
        assert guard.known(credential) is None
        with pytest.raises(Unauthenticated) as refused:
            await guard.authenticate(credential)
        assert refused.value.was_given
        assert (
            credential.removeprefix(b"Bearer ").decode("latin-1")[:40] not in str(refused.value) or not credential[8:]
        )


async def test_the_scheme_is_read_in_any_case(tmp_path: Path) -> None:
    guard = _guard(tmp_path, keys=_follower(FakeKeys(_record(1))))
    for scheme in ("bearer", "BEARER", "Bearer "):
        assert (await guard.authenticate(f"{scheme} {_secret(1)}".encode())).id == "key:shop-1"


async def test_no_credential_is_refused_unless_anybody_may_ask(tmp_path: Path) -> None:
    guard = _guard(tmp_path, keys=_follower(FakeKeys(_record(1))))
    assert guard.known(None) is None
    with pytest.raises(Unauthenticated, match="no credential was given") as refused:
        await guard.authenticate(None)
    assert not refused.value.was_given
    anybody = anonymous()
    assert _guard(tmp_path, anonymous=anybody).known(None) is anybody
    assert _guard(tmp_path, anonymous=anybody).state() == (
        True, "development mode: whoever reaches this gateway may ask it anything",
    )  # fmt: skip


def test_the_key_header_counts_where_there_is_no_authorization() -> None:
    assert credential_of(None, None) is None
    assert credential_of(None, b"skw_a") == b"Bearer skw_a"
    assert credential_of(b"Bearer one", b"skw_a") == b"Bearer one"
    assert credential_of(b"", b"skw_a") == b"", "an empty credential is a wrong one, not none"


async def test_a_revoked_key_opens_nothing_once_the_follower_looked(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1), _record(2))
    follower = _follower(reader)
    guard = _guard(tmp_path, keys=follower)
    await follower.refresh()
    kept = guard.known(_bearer(2))
    reader.change(_record(2))
    await follower.refresh()
    assert guard.known(_bearer(1)) is None
    assert guard.known(_bearer(2)) is kept, "whoever is unchanged stays the same, with what was worked out for it"
    with pytest.raises(Unauthenticated, match="no such API key"):
        await guard.authenticate(_bearer(1))


async def test_a_key_expires_at_its_moment_though_nobody_looks(tmp_path: Path) -> None:
    now = [NOW]
    follower = _follower(FakeKeys(_record(1, expires_time=Micros(NOW + 1))), now=lambda: now[0])
    guard = _guard(tmp_path, keys=follower)
    assert (await guard.authenticate(_bearer(1))).id == "key:shop-1"
    now[0] = Micros(NOW + 1)
    assert guard.known(_bearer(1)) is None
    with pytest.raises(Unauthenticated, match="`shop-1` has expired"):
        await guard.authenticate(_bearer(1))


async def test_a_key_made_a_moment_ago_is_looked_up_and_guesses_are_not_for_long(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    follower = _follower(reader)
    await follower.refresh()
    guard = _guard(tmp_path, keys=follower)
    reader.change(_record(1), _record(2))
    assert (await guard.authenticate(_bearer(2))).id == "key:shop-2"
    for number in range(3, 300):
        with pytest.raises(Unauthenticated):
            await guard.authenticate(_bearer(number))
    assert reader.asked.count("hash") <= 3 * KEY_LOOKUPS_PER_S_MAX


async def test_a_registry_that_hangs_holds_few_threads_and_none_who_is_known(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    follower = _follower(reader)
    await follower.refresh()
    guard = _guard(tmp_path, keys=follower)
    reader.hangs = threading.Event()
    guesses = [asyncio.create_task(guard.authenticate(_bearer(number))) for number in range(2, 10)]
    await until(lambda: sum(guess.done() for guess in guesses) == len(guesses) - KEY_LOOKUPS_AT_ONCE_MAX)
    assert guard.known(_bearer(1)) is not None
    reader.hangs.set()
    refused = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(each) for each in refused} == {Unauthenticated}


async def test_callers_that_come_before_the_first_keys_share_one_read(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    guard = _guard(tmp_path, keys=_follower(reader))
    callers = await asyncio.gather(*(guard.authenticate(_bearer(1)) for _ in range(20)))
    assert {caller.id for caller in callers} == {"key:shop-1"}
    assert reader.asked == ["version", "keys"]


async def test_keys_are_read_only_when_they_changed(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    follower = _follower(reader)
    for _ in range(5):
        await follower.refresh()
    assert reader.asked.count("keys") == 1
    reader.change()
    await follower.refresh()
    assert reader.asked.count("keys") == 2


async def test_a_gateway_starts_from_its_copy_while_the_registry_is_away(tmp_path: Path) -> None:
    rate = ApiRate(5.0, 9)
    await _follower(FakeKeys(_record(1, rate=rate), _record(2, expires_time=NOW)), tmp_path).refresh()
    away = FakeKeys()
    away.failure = Unavailable("registry database", "it is away")
    follower = _follower(away, tmp_path)
    await follower.refresh()
    guard = _guard(tmp_path, keys=follower)
    found = guard.known(_bearer(1))
    assert found is not None
    assert (found.scopes, found.rate) == (SCOPES, rate)
    assert guard.known(_bearer(2)) is None, "it has expired, whoever is away"
    assert guard.state() == (True, away.failure.message)
    assert not any(_secret(number)[4:] in (tmp_path / "api_keys.json").read_text() for number in (1, 2))


@pytest.mark.parametrize(
    "spoiled", ["", "{}", "[7]", '[{"hash": 1}]', '[{"hash": "x", "name": "y", "scopes": [{}]}]', SPOILED_HASH]
)
async def test_a_spoiled_copy_lets_nobody_in_and_stops_nobody(tmp_path: Path, spoiled: str) -> None:
    (tmp_path / "api_keys.json").write_text(spoiled)
    away = FakeKeys(_record(1))
    away.failure = Unavailable("registry database", "it is away")
    follower = _follower(away, tmp_path)
    guard = _guard(tmp_path, keys=follower)
    with pytest.raises(Unavailable, match="it is away"):
        await guard.authenticate(_bearer(1))
    assert guard.state()[0] is False
    away.failure = None
    await follower.refresh()
    assert (await guard.authenticate(_bearer(1))).id == "key:shop-1"


async def test_what_was_read_stays_while_the_registry_is_away(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    follower = _follower(reader)
    await follower.refresh()
    reader.failure = Unavailable("registry database", "it is away")
    await follower.refresh()
    guard = _guard(tmp_path, keys=follower)
    assert guard.known(_bearer(1)) is not None
    with pytest.raises(Unauthenticated):
        await guard.authenticate(_bearer(2))


async def test_following_goes_on_by_itself_and_ends_when_asked_to(tmp_path: Path) -> None:
    reader = FakeKeys(_record(1))
    guard = _guard(tmp_path, keys=_follower(reader))
    running = asyncio.create_task(guard.run())
    await until(lambda: guard.known(_bearer(1)) is not None)
    reader.change()
    guard.wake()
    await until(lambda: guard.known(_bearer(1)) is None)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    guard.close()


class FakeProvider:
    """One signing key."""

    key = SigningKey("one")

    def fetch(self) -> bytes:
        return key_set(self.key)


async def test_tokens_and_keys_are_told_apart(tmp_path: Path) -> None:
    rules = TokenRules(ISSUER, (AUDIENCE,), frozenset({"ES256"}), 5.0)
    tokens = Tokens(FakeProvider(), rules, ClaimRules("skewless.endpoints", "scope"), now=lambda: NOW)
    guard = _guard(tmp_path, tokens=tokens, keys=_follower(FakeKeys(_record(1))))
    token = f"Bearer {FakeProvider.key.token(claims(ISSUER))}".encode()
    assert guard.known(token) is None
    caller = await guard.authenticate(token)
    assert guard.known(token) is caller
    assert (caller.id, caller.allows("flight-delay"), caller.allows("other")) == ("jwt:shop", True, False)
    assert (await guard.authenticate(_bearer(1))).id == "key:shop-1"
    only_tokens = _guard(tmp_path, tokens=tokens)
    with pytest.raises(Unauthenticated, match="takes no API keys"):
        await only_tokens.authenticate(_bearer(1))


async def test_a_certificate_counts_by_its_first_known_name_where_no_credential_is_given(tmp_path: Path) -> None:
    file = tmp_path / "scopes.json"
    file.write_text('{"spiffe://shop/booking": {"scopes": [{"endpoints": ["one"]}], "rate": {"per_s": 1, "burst": 2}}}')
    guard = _guard(tmp_path, clients=ClientScopes.read(file), keys=_follower(FakeKeys(_record(1))))
    peer = PeerCertificate(("spiffe://shop/other", "spiffe://shop/booking", "booking.example"))
    caller = guard.known(None, peer)
    assert caller is not None
    assert (caller.id, caller.allows("one"), caller.allows("two")) == ("cert:spiffe://shop/booking", True, False)
    assert caller.rate == ApiRate(1.0, 2)
    assert guard.known(None, None) is None
    assert (await guard.authenticate(_bearer(1), peer)).id == "key:shop-1"
    with pytest.raises(Unauthenticated, match="no such API key"):
        await guard.authenticate(_bearer(2), peer)
    with pytest.raises(Unauthenticated, match=r"\(`stranger`\) is of nobody"):
        await guard.authenticate(None, PeerCertificate(("stranger",)))
    assert peer_of(None) is None


async def test_a_rate_is_counted_at_the_door_and_rows_afterwards(tmp_path: Path) -> None:
    guard = _guard(tmp_path, keys=_follower(FakeKeys(_record(1, rate=ApiRate(0.001, 3)))))
    caller = await guard.authenticate(_bearer(1))
    guard.check_rate(caller)
    guard.charge(caller, 100)
    guard.check_rate(caller)
    guard.charge(caller, 101)
    with pytest.raises(RateLimited):
        guard.check_rate(caller)


@pytest.mark.parametrize("host", [None, b"127.0.0.1:8100", b"localhost", b"LOCALHOST:1", b"[::1]:8100", b"127.0.0.2"])
def test_in_development_mode_the_gateway_is_asked_by_a_name_of_this_machine(tmp_path: Path, host: bytes | None) -> None:
    anybody = anonymous()
    guard = _guard(tmp_path, anonymous=anybody)
    guard.check_host(anybody, host)
    for evil in (
        b"evil.example",
        b"evil.example:8100",
        b"127.0.0.1.evil.example",
        b"localhost.evil.example",
        b"",
        b"\xff",
    ):
        with pytest.raises(Forbidden, match="development mode"):
            guard.check_host(anybody, evil)
        guard.check_host(Caller("key:shop", SCOPES), evil)


def test_a_caller_that_may_ask_nothing_tells_no_outcomes() -> None:
    Caller("key:shop", SCOPES).may_tell_outcomes()
    with pytest.raises(Forbidden):
        Caller("jwt:stranger", ()).may_tell_outcomes()
