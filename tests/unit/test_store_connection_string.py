"""Where commands find the online store: what Feast takes for a connection string, as a URL for our own clients."""

import pytest

from skewless.adapters.redis_url import connection_string_url, parse_store_url
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidSettings
from skewless.settings import Settings, describe


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("store:6379,password=secret", "redis://:secret@store:6379"),
        ("store:6379,password=a=b/c@d", "redis://:a%3Db%2Fc%40d@store:6379"),
        ("store:6380,ssl=true,username=ann,password=x,db=3", "rediss://ann:x@store:6380/3"),
    ],
)
def test_options_become_parts_of_a_url_that_our_clients_read(text: str, url: str) -> None:
    assert connection_string_url(text) == url
    assert str(parse_store_url(url).nodes[0]) == text.split(",")[0]


@pytest.mark.parametrize("text", ["one:6379,two:6379", "store:6379,password=secret,colour=red"])
def test_what_has_no_url_is_refused_without_telling_the_password(text: str) -> None:
    with pytest.raises(InvalidSettings, match="is not known here") as error:
        connection_string_url(text)
    assert "secret" not in str(error.value)


def test_feast_gets_the_options_and_no_printed_setting_shows_the_password() -> None:
    settings = Settings(online_store="store:6379,password=secret,db=1")
    assert Workspace(settings).online_store_url == "redis://:secret@store:6379/1"
    assert "SKEWLESS_ONLINE_STORE=store:6379,password=***,db=1" in describe(settings)
    assert "secret" not in describe(settings)
