"""The URL of an online store: what may be written, what it means, and that no refusal shows a password."""

import pytest

from skewless.adapters.redis_url import Credentials, Node, StoreAddress, Tls, Topology, parse_store_url
from skewless.errors import InvalidSettings

HERE = (Node("here", 6379),)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://here", StoreAddress(Topology.SINGLE, HERE)),
        ("redis://here:6380/3", StoreAddress(Topology.SINGLE, (Node("here", 6380),), database=3)),
        ("redis://here?db=3", StoreAddress(Topology.SINGLE, HERE, database=3)),
        ("redis://here/", StoreAddress(Topology.SINGLE, HERE)),
        ("redis://[::1]:6380", StoreAddress(Topology.SINGLE, (Node("::1", 6380),))),
        ("redis://:secret@here", StoreAddress(Topology.SINGLE, HERE, credentials=Credentials("", "secret"))),
        (
            "redis://u%3Aser:p%40s%2Cs%2Fw%3A%25@here",
            StoreAddress(Topology.SINGLE, HERE, credentials=Credentials("u:ser", "p@s,s/w:%")),
        ),
        ("redis://u:a@b:c@here", StoreAddress(Topology.SINGLE, HERE, credentials=Credentials("u", "a@b:c"))),
        ("rediss://here", StoreAddress(Topology.SINGLE, HERE, tls=Tls())),
        (
            "rediss://here?ssl_ca_certs=/a.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False",
            StoreAddress(Topology.SINGLE, HERE, tls=Tls("/a.pem", "/c.pem", "/k.pem", check_hostname=False)),
        ),
        ("unix:///run/a%20b.sock?db=2", StoreAddress(Topology.SINGLE, (Node("/run/a b.sock", 0),), database=2)),
        (
            "unix://u:p@/run/valkey.sock",
            StoreAddress(Topology.SINGLE, (Node("/run/valkey.sock", 0),), credentials=Credentials("u", "p")),
        ),
        (
            "redis+cluster://a:1,b,[::1]:3",
            StoreAddress(Topology.CLUSTER, (Node("a", 1), Node("b", 6379), Node("::1", 3))),
        ),
        ("rediss+cluster://a:1/0", StoreAddress(Topology.CLUSTER, (Node("a", 1),), tls=Tls())),
        (
            "redis+sentinel://u:p@a,b:2/features?db=1&sentinel_username=s&sentinel_password=q%26",
            StoreAddress(
                Topology.SENTINEL,
                (Node("a", 26379), Node("b", 2)),
                service="features",
                database=1,
                credentials=Credentials("u", "p"),
                sentinel_credentials=Credentials("s", "q&"),
            ),
        ),
    ],
)
def test_a_url_means_what_it_says(url: str, address: StoreAddress) -> None:
    parsed = parse_store_url(url)
    assert parsed == address
    assert (parsed.credentials, parsed.sentinel_credentials) == (address.credentials, address.sentinel_credentials)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://here", "must begin with one of"),
        ("here:6379", "must begin with one of"),
        ("", "must begin with one of"),
        ("redis://", "a host is missing"),
        ("redis://a,,b", "takes one host"),
        ("redis+cluster://a,,b", "a host is missing"),
        ("redis+cluster://[::1]x", "a host is missing"),
        ("redis://a,b", "takes one host"),
        ("redis://a:0", "a port is not a number from 1 to 65535"),
        ("redis://a:65536", "a port is not a number"),
        ("redis://a:", "a port is not a number"),
        ("redis://a:²", "a port is not a number"),
        ("redis://a/x", "the database is not a number"),
        ("redis://a/-1", "the database is not a number"),
        ("redis://a/1?db=2", "the database is given twice"),
        ("redis://a?dbase=2", "option that redis:// does not take"),
        ("redis://a?db=2&db=2", "one twice"),
        ("redis://a?ssl_ca_certs=/a.pem", "option that redis:// does not take"),
        ("rediss://a?ssl_keyfile=/k.pem", "ssl_keyfile is given without ssl_certfile"),
        ("rediss://a?ssl_check_hostname=perhaps", "neither true nor false"),
        ("unix://", "absolute path"),
        ("unix://host/path", "absolute path"),
        ("redis+cluster://a/1", "a cluster has one database"),
        ("redis+sentinel://a", "the name of the sentinels' service is missing"),
    ],
)
def test_what_may_not_be_written_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(InvalidSettings, match="the online store's URL cannot be used") as caught:
        parse_store_url(url)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:sec/ret@here",
        "redis://user:sec?ret@here",
        "redis://user:secret@here:port",
        "redis://user:secret",
        "redis://secret@here?dbase=1",
        "redis+sentinel://a/service?sentinel_pass=secret",
        "secret",
        "http://user:secret@here",
        "redis://user:secret@here/x",
    ],
)
def test_no_refusal_shows_a_password(url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        parse_store_url(url)
    for part in ("secret", "sec/", "sec?", "ret@"):
        assert part not in str(caught.value)


def test_an_address_does_not_show_its_passwords() -> None:
    address = parse_store_url("redis+sentinel://u:secret@a/features?sentinel_password=secret")
    assert "secret" not in repr(address)
