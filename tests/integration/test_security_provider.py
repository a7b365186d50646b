"""Fetching an identity provider's keys over real HTTPS: verified, bounded, and not led elsewhere."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.certificates import Authority
from harness.identity_provider import (
    DISCOVERY,
    KEYS,
    Answer,
    IdentityProvider,
    SigningKey,
    claims,
    key_set,
    running_provider,
)
from skewless.adapters.jwks_rules import TokenRules, why_not_https
from skewless.adapters.jwks_source import JwksSource
from skewless.errors import InvalidSettings, Unauthenticated, Unavailable
from skewless.limits import JWKS_BYTES_MAX
from skewless.timestamps import SECOND_US, Micros
from skewless_http.security.claims import ClaimRules
from skewless_http.security.tokens import Tokens

KEY = SigningKey("one")


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[IdentityProvider]:
    with running_provider(tmp_path / "provider") as made:
        made.publish(KEY)
        yield made


def _source(provider: IdentityProvider, *, keys_url: str | None = None, timeout_s: float = 30.0) -> JwksSource:
    return JwksSource(provider.issuer, keys_url, provider.ca, timeout_s)


def test_keys_are_found_by_discovery_or_where_they_are_said_to_be(provider: IdentityProvider) -> None:
    assert _source(provider).fetch() == key_set(KEY)
    assert _source(provider, keys_url=f"{provider.url}{KEYS}").fetch() == key_set(KEY)
    assert provider.asked == {DISCOVERY: 1, KEYS: 2}


def test_a_provider_with_a_certificate_of_another_authority_is_not_believed(
    provider: IdentityProvider, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    for ca in (other.ca, None):
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            JwksSource(provider.issuer, None, ca).fetch()
    assert provider.asked == {}


def test_a_certificate_of_another_host_is_not_believed(provider: IdentityProvider) -> None:
    elsewhere = provider.issuer.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.2|refused"):
        JwksSource(elsewhere, None, provider.ca).fetch()
    assert provider.asked == {}


def test_a_redirect_is_not_followed(provider: IdentityProvider) -> None:
    for status in (301, 302, 307, 308):
        provider.answers[KEYS] = Answer(status=status, headers={"Location": f"{provider.url}/elsewhere"})
        provider.answers["/elsewhere"] = Answer(key_set(SigningKey("evil")))
        with pytest.raises(Unavailable, match=str(status)):
            _source(provider).fetch()
    assert "/elsewhere" not in provider.asked


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"<html>", "is no discovery document"),
        (b"[]", "is no discovery document"),
        (b'{"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"}', "of the issuer"),
    ],
)
def test_a_discovery_document_that_is_not_the_issuers_own_is_refused(
    provider: IdentityProvider, document: bytes, reason: str
) -> None:
    provider.answers[DISCOVERY] = Answer(document)
    with pytest.raises(Unavailable, match=reason):
        _source(provider).fetch()


@pytest.mark.parametrize(
    "keys_url", ["http://127.0.0.1/keys", "file:///etc/passwd", "//x/keys", "https://u:p@x/k", "", 7]
)
def test_discovery_cannot_lead_to_an_address_without_a_verified_certificate(
    provider: IdentityProvider, keys_url: object
) -> None:
    provider.answers[DISCOVERY] = Answer(json.dumps({"issuer": provider.issuer, "jwks_uri": keys_url}).encode())
    with pytest.raises(Unavailable, match="names the key set"):
        _source(provider).fetch()


def test_an_endless_answer_is_cut_and_a_stalled_one_given_up(provider: IdentityProvider) -> None:
    provider.answers[KEYS] = Answer(b" " * (JWKS_BYTES_MAX + 1))
    with pytest.raises(Unavailable, match=f"more than {JWKS_BYTES_MAX} bytes"):
        _source(provider).fetch()
    provider.answers[KEYS] = Answer(key_set(KEY), stall=True)
    begun_s = time.monotonic()
    with pytest.raises(Unavailable, match=r"timed out|too long"):
        _source(provider, timeout_s=2.0).fetch()
    assert time.monotonic() - begun_s < 60


def test_an_address_that_is_not_https_is_refused_when_it_is_set() -> None:
    for address in (
        "http://login.example.com",
        "ftp://x",
        "login.example.com",
        "https://",
        "https://a:b@c",
        "https://[x",
    ):
        assert why_not_https(address)
        with pytest.raises(InvalidSettings, match="cannot be fetched from"):
            JwksSource(address)
    with pytest.raises(InvalidSettings, match="cannot be read"):
        JwksSource("https://login.example.com", None, Path("no-such-file.pem"))


async def test_tokens_go_on_through_a_change_of_keys_and_an_outage(provider: IdentityProvider) -> None:
    """Rotation as providers do it: the new key is published first, and the old one is taken away last."""
    gone_s = 0.0
    rules = TokenRules(provider.issuer, ("skewless",), frozenset({"ES256"}), 5.0)
    tokens = Tokens(
        _source(provider), rules, ClaimRules("skewless.endpoints", "scope"),
        now=lambda: Micros(int(time.time() * SECOND_US)), monotonic=lambda: 1_000 + gone_s,
    )  # fmt: skip
    first, second = KEY, SigningKey("two", "ES256")
    old, new = (key.token(claims(provider.issuer)).encode() for key in (first, second))
    assert (await tokens.verify(old)).id == "jwt:shop"
    provider.publish(first, second)
    gone_s += 20
    assert (await tokens.verify(new)).id == "jwt:shop"
    assert (await tokens.verify(old)).id == "jwt:shop"
    published = dict(provider.answers)
    provider.answers = {}
    gone_s += 1_000
    await tokens.refresh()
    assert "404" in tokens.state.error
    assert (await tokens.verify(new)).id == "jwt:shop"
    provider.answers = published
    provider.publish(second)
    await tokens.refresh()
    assert tokens.state.error == ""
    assert (await tokens.verify(new)).id == "jwt:shop"
    with pytest.raises(Unauthenticated):
        await tokens.verify(old)
