"""What a token must be to be believed: every way to forge or spoil one that RFC 8725 names, and some more."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from harness.identity_provider import AUDIENCE, SigningKey, claims, encoded, key_set
from harness.polling import SOON_S, until
from skewless.adapters.jwks_rules import ALGORITHMS, TokenRules
from skewless.adapters.jwks_verification import KeySet, read_token, verify
from skewless.errors import InvalidDefinition, Overloaded, Unauthenticated, Unavailable
from skewless.limits import CREDENTIAL_BYTES_MAX, JWKS_AGE_MAX_S, JWKS_MISS_GAP_S, TOKENS_KNOWN_MAX
from skewless.registry.api_scopes import ApiScope
from skewless.timestamps import SECOND_US, Micros
from skewless_http.security.claims import ClaimRules
from skewless_http.security.provider_copy import ProviderCopy
from skewless_http.security.tokens import Tokens

ISSUER = "https://login.example.com/realms/shop"
RULES = TokenRules(ISSUER, (AUDIENCE, "other-service"), frozenset(ALGORITHMS), leeway_s=5.0)
CLAIMS = ClaimRules("skewless.endpoints", "scope")
KEY = SigningKey("one")
OTHER = SigningKey("two")
RSA = SigningKey("rsa", "RS256")


def _verified(token: str, *keys: SigningKey, rules: TokenRules = RULES) -> dict[str, Any]:
    read = read_token(token.encode(), rules)
    key = KeySet.parse(key_set(*(keys or (KEY, RSA))), rules.algorithms).find(read)
    if key is None:
        raise Unauthenticated("no such key")
    return dict(verify(read, key, rules))


def _spoiled(token: str, *, header: object = None, payload: object = None) -> str:
    """The token with another header or payload under the same signature."""
    parts = token.split(".")
    parts[0] = parts[0] if header is None else encoded(header)
    parts[1] = parts[1] if payload is None else encoded(payload)
    return ".".join(parts)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_token_that_one_of_the_keys_signed_is_believed(algorithm: str) -> None:
    key = SigningKey("mine", algorithm)
    assert _verified(key.token(claims(ISSUER)), OTHER, key)["sub"] == "shop"
    with pytest.raises(Unauthenticated, match="signature is wrong"):
        _verified(SigningKey("mine", algorithm).token(claims(ISSUER)), OTHER, key)


def test_a_token_may_be_for_several_audiences_of_which_one_is_ours() -> None:
    assert _verified(KEY.token(claims(ISSUER, aud=["else", AUDIENCE])))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": int(time.time()) - 60}, "has expired"),
        ({"exp": None}, "no claim `exp`"),
        ({"exp": "soon"}, "not valid"),
        ({"exp": str(int(time.time()) + 86_400)}, "not of their types"),
        ({"exp": True}, "has expired"),
        ({"exp": [1]}, "not valid"),
        ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
        ({"iat": int(time.time()) + 86_400}, "not valid yet"),
        ({"aud": "somebody-else"}, "another audience"),
        ({"aud": None}, "no claim `aud`"),
        ({"aud": ["somebody-else"]}, "another audience"),
        ({"aud": {"skewless": 1}}, "another audience"),
        ({"aud": AUDIENCE[:-1]}, "another audience"),
        ({"iss": "https://login.example.com/realms/other"}, "another issuer"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"iss": [ISSUER]}, "another issuer"),
        ({"iss": None}, "no claim `iss`"),
        ({"sub": None}, "no claim `sub`"),
        ({"sub": 7}, "not valid"),
    ],
)
def test_a_token_that_is_not_for_now_or_not_for_here_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        _verified(KEY.token(claims(ISSUER, **changes)) if changes.get("iss", "") != [ISSUER] else _odd(changes))


def _odd(changes: dict[str, Any]) -> str:
    """Signed like a good one; the library that signs would not write these claims."""
    return jwt.api_jws.encode(
        json.dumps(claims(ISSUER, **changes)).encode(), KEY.private, "ES256", headers={"kid": "one"}
    )


def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    now = int(time.time())
    assert _verified(KEY.token(claims(ISSUER, exp=now - 2)))
    with pytest.raises(Unauthenticated, match="expired"):
        _verified(KEY.token(claims(ISSUER, exp=now - 6)))


def test_claims_that_are_asked_for_must_be_there_as_a_value_or_in_a_list() -> None:
    rules = TokenRules(ISSUER, (AUDIENCE,), frozenset({"ES256"}), 5.0, required=(("azp", "booking"), ("groups", "ml")))
    assert _verified(KEY.token(claims(ISSUER, azp="booking", groups=["ml", "x"])), KEY, rules=rules)
    for wrong in ({}, {"azp": "booking"}, {"azp": "else", "groups": ["ml"]}, {"azp": "booking", "groups": "mlx"}):
        with pytest.raises(Unauthenticated, match="is not what this gateway asks for"):
            _verified(KEY.token(claims(ISSUER, **wrong)), KEY, rules=rules)


def test_a_public_key_is_no_shared_secret() -> None:
    """The old confusion: an HS256 token keyed with what the provider publishes."""
    public = json.dumps(RSA.public).encode()
    unsigned = f"{encoded({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{encoded(claims(ISSUER))}"
    mac = hmac.new(public, unsigned.encode(), hashlib.sha256).digest()
    with pytest.raises(Unauthenticated, match="signed by `HS256` are not taken"):
        _verified(f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, "HS256", "RS255", ["ES256"], 1])
def test_a_token_without_a_good_signature_is_refused_whatever_it_says(algorithm: object) -> None:
    token = KEY.token(claims(ISSUER))
    for signature in ("", "AA", token.split(".")[2]):
        spoiled = _spoiled(token, header={"alg": algorithm, "kid": "one"}).rpartition(".")[0]
        with pytest.raises(Unauthenticated):
            _verified(f"{spoiled}.{signature}")


def test_a_key_verifies_nothing_but_its_own_algorithm() -> None:
    with pytest.raises(Unauthenticated):
        _verified(RSA.token(claims(ISSUER), alg="PS256"), RSA)
    with pytest.raises(Unauthenticated):
        _verified(_spoiled(RSA.token(claims(ISSUER)), header={"alg": "ES256", "kid": "rsa"}), RSA)


def test_an_algorithm_that_the_settings_do_not_name_is_refused() -> None:
    rules = TokenRules(ISSUER, (AUDIENCE,), frozenset({"RS256"}), 5.0)
    with pytest.raises(Unauthenticated, match="allowed: RS256"):
        _verified(KEY.token(claims(ISSUER)), KEY, RSA, rules=rules)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": ["exp"]}, "asks for extensions"),
        ({"crit": []}, "asks for extensions"),
        ({"b64": True, "crit": ["b64"]}, "asks for extensions"),
        ({"typ": "dpop+jwt"}, "no access token"),
        ({"typ": "secevent+jwt"}, "no access token"),
        ({"kid": "x" * 300}, "key id is no text of usable length"),
        ({"kid": "../../dev/null"}, "no such key"),
        ({"kid": "one' OR '1'='1"}, "no such key"),
        ({"kid": "ONE"}, "no such key"),
        ({"kid": "two"}, "signature is wrong"),
    ],
)
def test_a_header_that_asks_for_more_or_names_another_key_is_refused_though_it_is_signed(
    header: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        _verified(KEY.token(claims(ISSUER), **header), KEY, OTHER)


@pytest.mark.parametrize(
    "header", [{"kid": ""}, {"kid": 7}, {"kid": ["one"]}, {"typ": 7}, {"typ": ["JWT"]}, {"alg": {}}]
)
def test_a_header_of_other_types_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        _verified(_spoiled(KEY.token(claims(ISSUER)), header={"alg": "ES256", "kid": "one", **header}), KEY, OTHER)


def test_a_key_that_the_token_brings_along_or_points_to_is_not_looked_at() -> None:
    """The signature is good by the key in the header, which is the attacker's; the key id is the provider's."""
    attacker = SigningKey("one")
    for header in ({"jwk": attacker.public}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/x"}):
        with pytest.raises(Unauthenticated, match="signature is wrong"):
            _verified(attacker.token(claims(ISSUER), **header), KEY)


def test_a_claim_that_stands_twice_is_refused_though_the_signature_is_good() -> None:
    text = json.dumps(claims(ISSUER))
    for twice in (f'{text[:-1]}, "sub": "admin"}}', text.replace('"scope"', '"exp": 99999999999, "scope"')):
        token = jwt.api_jws.encode(twice.encode(), KEY.private, "ES256", headers={"kid": "one"})
        with pytest.raises(Unauthenticated, match="claims cannot be read"):
            _verified(token)


@pytest.mark.parametrize("payload", ["[]", "7", "", "{", '{"exp": NaN}', '{"exp": 1e999}', "[" * 3_000, '"x"'])
def test_claims_that_are_no_plain_object_are_refused(payload: str) -> None:
    with pytest.raises(Unauthenticated):
        _verified(_spoiled(KEY.token(claims(ISSUER)), payload=payload))


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c", "a.b.c.d.e", "é.b.c", "ey J.eyJ.x", "eyJ9.eyJ9.", "\x00.\x00.\x00", "x" * 100],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        read_token(token.encode(), RULES)


def test_a_huge_token_is_refused_before_it_is_decoded() -> None:
    token = KEY.token(claims(ISSUER, junk="x" * CREDENTIAL_BYTES_MAX))
    with pytest.raises(Unauthenticated, match="allowed: at most 8192"):
        read_token(token.encode(), RULES)


def test_no_message_quotes_the_token() -> None:
    secret = "s3cr3t-subject"
    good = KEY.token(claims(ISSUER, sub=secret, exp=1))
    for token in (good, good[:-4] + "AAAA", good.partition(".")[2], f"{secret}.{secret}.{secret}"):
        with pytest.raises(Unauthenticated) as refused:
            _verified(token)
        assert secret not in str(refused.value)
        assert token[-20:] not in str(refused.value)


def test_of_a_key_set_only_public_signing_keys_of_good_size_are_taken() -> None:
    good = KEY.public
    weak = SigningKey("weak", "RS256", bits=1_024).public
    changes = (
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"d": "x"},
        {"kid": 7},
        {"crv": "P-999"},
        {"x": "!"},
        {"alg": "HS256"},
    )
    private = ECAlgorithm.to_jwk(OTHER.private, as_dict=True)
    bad: list[object] = [
        weak,
        private,
        {"kty": "oct", "k": "c2VjcmV0"},
        *({**good, **each} for each in changes),
        7,
        None,
        [],
        {},
    ]
    with pytest.raises(InvalidDefinition, match="none of the 14 keys"):
        KeySet.parse(json.dumps({"keys": bad}).encode(), RULES.algorithms)
    assert len(KeySet.parse(json.dumps({"keys": [*bad, good]}).encode(), RULES.algorithms)) == 1


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b"<html>", b"[" * 100_000])
def test_a_document_that_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidDefinition):
        KeySet.parse(document, RULES.algorithms)


def test_without_a_key_id_the_one_key_that_fits_is_tried_and_none_of_several() -> None:
    token = KEY.token(claims(ISSUER), kid=None)
    assert _verified(token, KEY, RSA)
    with pytest.raises(Unauthenticated):
        _verified(token, KEY, OTHER)


# From claims to a caller.


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ({"scope": "openid predict:one predict:two"}, (ApiScope(("one", "two")),)),
        ({"scope": ["predict:one", "admin"]}, (ApiScope(("one",)),)),
        ({"skewless.endpoints": ["one"], "scope": "predict:two predict:one"}, (ApiScope(("one", "two")),)),
        ({"skewless.endpoints": "*"}, (ApiScope(("*",)),)),
        ({"scope": "predict:one predict:*"}, (ApiScope(("*",)),)),
        (
            {"scope": "predict:one", "skewless.entities": {"tailnum": ["N1"]}},
            (ApiScope(("one",), {"tailnum": ("N1",)}),),
        ),
        ({"scope": "openid profile"}, ()),
        ({}, ()),
    ],
)
def test_claims_say_which_endpoints_may_be_asked(given: dict[str, Any], scopes: tuple[ApiScope, ...]) -> None:
    caller = CLAIMS.caller({"sub": "shop", **given})
    assert (caller.id, caller.scopes) == ("jwt:shop", scopes)


@pytest.mark.parametrize(
    "given",
    [
        {"scope": 7}, {"scope": [7]}, {"skewless.endpoints": {"one": 1}}, {"scope": "predict:One"},
        {"scope": "predict:"}, {"skewless.endpoints": [f"e{n}" for n in range(300)]}, {"sub": "a\nb"}, {"sub": ""},
        {"sub": "x" * 256},
        {"scope": "predict:one", "skewless.entities": ["N1"]},
        {"scope": "predict:one", "skewless.entities": {"tailnum": "N1"}},
        {"scope": "predict:one", "skewless.entities": {"tailnum": []}},
        {"scope": "predict:one", "skewless.entities": {"tailnum": [""]}},
        {"scope": "predict:one", "skewless.entities": {"tailnum": [1]}},
    ],
)  # fmt: skip
def test_claims_that_are_not_understood_let_nobody_in(given: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="cannot be understood"):
        CLAIMS.caller({"sub": "shop", **given})


# Remembering tokens, and following the provider's keys.


class FakeProvider:
    """A key set in memory. `failure`, where set, is raised instead."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = keys
        self.failure: Unavailable | None = None
        self.hangs: threading.Event | None = None
        self.fetched = 0

    def fetch(self) -> bytes:
        self.fetched += 1
        if self.hangs is not None:
            self.hangs.wait(SOON_S)
        if self.failure is not None:
            raise self.failure
        return key_set(*self.keys)


class Clock:
    """Seconds that a test moves on, beside the wall clock moved on as much."""

    def __init__(self) -> None:
        self.gone_s = 0.0

    def monotonic(self) -> float:
        return 1_000.0 + self.gone_s

    def now(self) -> Micros:
        return Micros(int((time.time() + self.gone_s) * SECOND_US))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _tokens(provider: FakeProvider, clock: Clock, copy: ProviderCopy | None = None) -> Tokens:
    return Tokens(provider, RULES, CLAIMS, now=clock.now, copy=copy, monotonic=clock.monotonic)


async def test_a_verified_token_is_known_until_it_expires(clock: Clock) -> None:
    tokens = _tokens(FakeProvider(KEY), clock)
    token = KEY.token(claims(ISSUER)).encode()
    assert tokens.known(token) is None
    caller = await tokens.verify(token)
    assert tokens.known(token) is caller
    clock.gone_s = 604
    assert tokens.known(token) is caller, "within the leeway"
    clock.gone_s = 606
    assert tokens.known(token) is None


async def test_a_token_that_expires_in_ages_is_no_trouble(clock: Clock) -> None:
    tokens = _tokens(FakeProvider(KEY), clock)
    token = KEY.token(claims(ISSUER, exp=10**300)).encode()
    caller = await tokens.verify(token)
    assert tokens.known(token) is caller


async def test_a_new_key_is_fetched_when_a_token_names_it_but_not_oftener_than_allowed(clock: Clock) -> None:
    provider = FakeProvider(KEY)
    tokens = _tokens(provider, clock)
    await tokens.verify(KEY.token(claims(ISSUER)).encode())
    provider.keys = (KEY, OTHER)
    token = OTHER.token(claims(ISSUER)).encode()
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens.verify(token)
    assert provider.fetched == 1
    clock.gone_s = JWKS_MISS_GAP_S
    assert (await tokens.verify(token)).id == "jwt:shop"
    assert provider.fetched == 2
    unknown = SigningKey("three")
    for _ in range(20):
        with pytest.raises(Unauthenticated):
            await tokens.verify(unknown.token(claims(ISSUER)).encode())
    assert provider.fetched == 2


async def test_callers_that_come_together_share_one_fetch(clock: Clock) -> None:
    provider = FakeProvider(KEY)
    tokens = _tokens(provider, clock)
    token = KEY.token(claims(ISSUER)).encode()
    callers = await asyncio.gather(*(tokens.verify(token) for _ in range(20)))
    assert {caller.id for caller in callers} == {"jwt:shop"}
    assert provider.fetched == 1


async def test_a_caller_that_hangs_up_does_not_end_the_fetch_for_others(clock: Clock) -> None:
    provider = FakeProvider(KEY)
    provider.hangs = threading.Event()
    tokens = _tokens(provider, clock)
    token = KEY.token(claims(ISSUER)).encode()
    first, second = (asyncio.create_task(tokens.verify(token)) for _ in range(2))
    await until(lambda: provider.fetched == 1)
    first.cancel()
    await until(first.done)
    provider.hangs.set()
    assert (await second).id == "jwt:shop"
    assert provider.fetched == 1


async def test_a_key_that_was_taken_back_opens_nothing_though_its_tokens_were_verified(clock: Clock) -> None:
    provider = FakeProvider(KEY, OTHER)
    tokens = _tokens(provider, clock)
    token, kept = KEY.token(claims(ISSUER)).encode(), OTHER.token(claims(ISSUER)).encode()
    await tokens.verify(token)
    provider.keys = (OTHER,)
    await tokens.refresh()
    assert tokens.known(token) is None
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens.verify(token)
    assert (await tokens.verify(kept)).id == "jwt:shop"


async def test_keys_of_a_provider_that_is_away_serve_for_a_day_and_no_longer(clock: Clock) -> None:
    provider = FakeProvider(KEY)
    tokens = _tokens(provider, clock)
    await tokens.refresh()
    provider.failure = Unavailable("identity provider", "it is away")
    clock.gone_s = JWKS_AGE_MAX_S - 1
    await tokens.refresh()
    long = KEY.token(claims(ISSUER, exp=int(time.time()) + 10**6)).encode()
    assert (await tokens.verify(long)).id == "jwt:shop"
    clock.gone_s = JWKS_AGE_MAX_S + JWKS_MISS_GAP_S
    await tokens.refresh()
    assert tokens.known(long) is None
    with pytest.raises(Unavailable, match="it is away"):
        await tokens.verify(long)


async def test_while_no_keys_were_ever_fetched_tokens_are_answered_with_unavailable(clock: Clock) -> None:
    provider = FakeProvider(KEY)
    provider.failure = Unavailable("identity provider", "it is away")
    tokens = _tokens(provider, clock)
    for _ in range(5):
        with pytest.raises(Unavailable, match="it is away"):
            await tokens.verify(KEY.token(claims(ISSUER)).encode())
    assert provider.fetched == 1
    provider.failure = None
    clock.gone_s = JWKS_MISS_GAP_S
    assert (await tokens.verify(KEY.token(claims(ISSUER)).encode())).id == "jwt:shop"


async def test_a_gateway_starts_from_its_copy_of_the_keys_while_the_provider_is_away(
    clock: Clock, tmp_path: Path
) -> None:
    token = KEY.token(claims(ISSUER)).encode()
    await _tokens(FakeProvider(KEY), clock, ProviderCopy(tmp_path, ISSUER)).refresh()
    away = FakeProvider()
    away.failure = Unavailable("identity provider", "it is away")
    assert (await _tokens(away, clock, ProviderCopy(tmp_path, ISSUER)).verify(token)).id == "jwt:shop"
    with pytest.raises(Unavailable, match="it is away"):
        await _tokens(away, clock, ProviderCopy(tmp_path, "https://other.example")).verify(token)
    clock.gone_s = JWKS_AGE_MAX_S + 1
    with pytest.raises(Unavailable, match="it is away"):
        await _tokens(away, clock, ProviderCopy(tmp_path, ISSUER)).verify(token)
    clock.gone_s = 0.0
    for spoiled in ("", "7", "{}", f'{{"issuer": "{ISSUER}", "document": "x", "fetched_time": 1}}'):
        (tmp_path / "identity_provider_keys.json").write_text(spoiled)
        with pytest.raises(Unavailable, match="it is away"):
            await _tokens(away, clock, ProviderCopy(tmp_path, ISSUER)).verify(token)


async def test_a_flood_of_forged_tokens_is_refused_without_checking_all_signatures(clock: Clock) -> None:
    tokens = _tokens(FakeProvider(KEY), clock)
    known = KEY.token(claims(ISSUER)).encode()
    caller = await tokens.verify(known)
    forged = SigningKey("one").token(claims(ISSUER)).encode()
    seen: set[type[Exception]] = set()
    for _ in range(3_000):
        try:
            await tokens.verify(forged)
        except (Unauthenticated, Overloaded) as error:
            seen.add(type(error))
        if Overloaded in seen:
            break
    assert seen == {Unauthenticated, Overloaded}
    assert tokens.known(known) is caller


async def test_only_so_many_tokens_are_remembered(clock: Clock) -> None:
    tokens = _tokens(FakeProvider(KEY), clock)
    first = KEY.token(claims(ISSUER)).encode()
    caller = await tokens.verify(first)
    for number in range(TOKENS_KNOWN_MAX):
        tokens._remember(str(number).encode(), caller, 10**18)
    assert tokens.known(first) is None
    assert len(tokens._known) == TOKENS_KNOWN_MAX
