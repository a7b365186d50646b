"""What a feature read needs of the online store. Adapters implement these; the plans know nothing else of it.

A read is a list of complete Redis commands, packed when the keys were built, with the key of each for whoever has to
route it. An answer is what the server said to each, undecoded.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

Reply = list[bytes | None] | Exception
"""The server's answer to one command: the array of an HMGET or HGETALL, or the error it gave for that key alone
(WRONGTYPE: something else lives under the key), returned and not raised."""

Invalidate = Callable[[Sequence[bytes] | None], None]
"""Called with keys whose hashes may have changed; with None when any may have (tracking was lost)."""


class OnlineStore(Protocol):
    """Reads hashes without blocking the event loop. One call is one pipeline per server."""

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """One reply per command, in order; `keys[i]` is the key that `commands[i]` reads.

        Raises Unavailable when the store does not answer, DeadlineExceeded when it takes longer than `timeout_s`.
        Never returns some of the replies, nor those of another call.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers. Raises Unavailable."""
        ...

    async def close(self) -> None: ...


class TrackedStore(Protocol):
    """An OnlineStore whose server tells when a hash that was read through `read_tracked` changes."""

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """As `OnlineStore.read`; from the moment of the reply on, a change of a key is told to the subscriber.

        A change is told after the reply it makes old was taken from the wire, but perhaps before the caller runs.
        """
        ...

    def subscribe(self, invalidate: Invalidate) -> None:
        """Have `invalidate` called, in the event loop, for every change and every loss of tracking from now on."""
        ...


class BlockingOnlineStore(Protocol):
    """Reads hashes from a thread of its own; not for use from an event loop."""

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """As `OnlineStore.read`."""
        ...

    def close(self) -> None: ...
