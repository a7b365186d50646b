"""Whether a part that is away keeps the gateway from answering, or only from answering on the normal rung.

A gateway that can answer stays ready: a load balancer would otherwise take every gateway away at once, and with them
the answers that degrade ladders are there for. What is away is told all the same.
"""

from collections.abc import Iterable, Mapping

from skewless.errors import SkewlessError
from skewless.features.online_store import OnlineStore
from skewless.serving.ports import ModelBackend
from skewless.serving.served_bundle import ServedBundle

PartVerdict = tuple[bool, str]
"""Whether predictions can be answered, and what is wrong, empty for nothing."""


async def online_store_state(store: OnlineStore, served: Mapping[str, ServedBundle]) -> PartVerdict:
    """Ok where the store answers, or every endpoint's live bundle (by endpoint) goes on without it."""
    try:
        await store.ping()
    except SkewlessError as error:
        stuck = sorted(name for name, each in served.items() if not each.goes_on_without_store)
        return _away(error.message, stuck, is_empty=not served)
    return True, ""


async def model_backend_state(backend: ModelBackend, served: Mapping[str, ServedBundle]) -> PartVerdict:
    """Ok where the servers answer and have every live model, or each that they lack is answered for without them."""
    try:
        await backend.ping()
    except SkewlessError as error:
        stuck = sorted(name for name, each in served.items() if not each.goes_on_without_servers)
        return _away(error.message, stuck, is_empty=not served)
    lost = [each for each in _distinct(served.values()) if not await backend.is_ready(each.model)]
    told = f"not loaded: {', '.join(each.model for each in lost)}" if lost else ""
    return all(each.goes_on_without_servers for each in lost), told


def _away(message: str, stuck: list[str], *, is_empty: bool) -> PartVerdict:
    if is_empty:
        return False, message
    if not stuck:
        return True, f"every endpoint answers on a lower rung: {message}"
    return False, f"{message}; without it nothing answers {', '.join(stuck)}"


def _distinct(served: Iterable[ServedBundle]) -> list[ServedBundle]:
    return list({each.model: each for each in served}.values())
