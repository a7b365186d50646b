"""Posts OpenLineage events to a catalogue over HTTP: plain JSON, one event at a time, within a bound of time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from skewless.errors import InvalidSettings, Unavailable
from skewless.ingest_limits import LINEAGE_CONNECT_S

RECEIVER = "the receiver of lineage"
_ANSWER_CHARACTERS_MAX = 200


class LineageReceiver:
    """One receiver. A password in its URL is sent as a bearer token, never as part of the URL."""

    def __init__(self, url: str) -> None:
        """Connects when first used. Raises InvalidSettings for a URL of another kind."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # The text itself stays out of the message: it may hold a password.
            raise InvalidSettings(
                "SKEWLESS_OPENLINEAGE_URL is no http:// or https:// URL",
                hint="give the whole URL that events are posted to, such as http://marquez:5000/api/v1/lineage",
            )
        host = parts.netloc.rpartition("@")[2]
        self.address = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._headers = {"Authorization": f"Bearer {parts.password}"} if parts.password else {}

    def send(self, events: Sequence[Mapping[str, Any]], *, within_s: float) -> Iterator[int]:
        """Post events in order; yields how many were taken, after each.

        Raises Unavailable for the first one that is not taken, or for which no time is left: those before it were.
        """
        give_up_s = time.monotonic() + within_s
        with httpx.Client(timeout=LINEAGE_CONNECT_S, trust_env=False, headers=self._headers) as client:
            for number, event in enumerate(events, start=1):
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    raise Unavailable(RECEIVER, f"{number - 1} of {len(events)} events were taken in {within_s:g} s")
                self._post(client, event, min(left_s, LINEAGE_CONNECT_S))
                yield number

    def _post(self, client: httpx.Client, event: Mapping[str, Any], timeout_s: float) -> None:
        try:
            answer = client.post(self.address, json=event, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise Unavailable(RECEIVER, f"{type(error).__name__} at {self.address}: {error}") from error
        if not answer.is_success:
            raise Unavailable(
                RECEIVER,
                f"it answered {answer.status_code} at {self.address}: {answer.text[:_ANSWER_CHARACTERS_MAX]}",
                hint="compare SKEWLESS_OPENLINEAGE_URL with the receiver's own documentation",
            )
