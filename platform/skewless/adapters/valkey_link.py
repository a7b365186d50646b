"""A blocking way to the one server that holds a key of Valkey or Redis, through sentinels and clusters.

Commands may change things there, and may then have been done twice: whoever asks must not mind.
"""

import time
from collections.abc import Callable
from typing import Any

from skewless.adapters.redis_blocking_connection import BlockingConnection, connect, performed
from skewless.adapters.redis_opening import data_opening, find_master, find_slots, question_opening
from skewless.adapters.redis_replies import StoreFailure, error_word_of, failure_of, packed
from skewless.adapters.redis_slots import SlotMap, key_slot
from skewless.adapters.redis_url import StoreAddress, Topology
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.limits import RETRY_AFTER_S

Command = tuple[str | bytes | int, ...]

_ANSWERS = frozenset({"NOGROUP", "BUSYGROUP", "ERR"})
"""First words of errors that are about a command, and not about the server."""
_ELSEWHERE = frozenset({"MOVED", "READONLY", "MASTERDOWN"})
"""First words of errors of a server that does not hold the key any more."""
_TRIES = 3


class ValkeyLink:
    """Connects when first used, and again after a failure. Not safe for threads."""

    def __init__(self, address: StoreAddress, key: str, *, part: str, acl_hint: str) -> None:
        """Raises InvalidSettings where the files of its TLS cannot be used. `part` is what errors call the server."""
        tls = address.tls.context() if address.tls else None
        self._address = address
        self._slot = key_slot(key.encode())
        self._part = part
        self._acl_hint = acl_hint
        self._data = data_opening(address, tls)
        is_sentinel = address.topology is Topology.SENTINEL
        self._asking = question_opening(address.sentinel_credentials if is_sentinel else address.credentials, tls)
        self._connection: BlockingConnection | None = None

    def ask(self, *commands: Command, timeout_s: float) -> list[Any]:
        """Raw replies; errors about a command are among them. Raises Unavailable.

        Sent again where the connection was dead before, or led to a server that does not hold the key any more.
        """
        deadline = time.monotonic() + timeout_s
        sent = [packed(*command) for command in commands]
        return self._tried(lambda connection: self._answered(connection, sent, deadline), deadline)

    def close(self) -> None:
        """Close the connection; a later question connects again."""
        if self._connection is not None:
            self._connection.close()

    def _tried(self, exchange: Callable[[BlockingConnection], list[Any]], deadline: float) -> list[Any]:
        tries = 0
        while True:
            tries += 1
            try:
                return exchange(self._connected(deadline))
            except StoreFailure as failure:
                self.close()
                if tries == _TRIES or not (failure.unanswered or failure.error_word in _ELSEWHERE):
                    hint = self._acl_hint if failure.error_word == "NOPERM" else failure.hint
                    raise self._unavailable(failure.reason, hint) from failure
            except DeadlineExceeded as error:
                self.close()
                raise self._unavailable(f"no answer in time ({error.message})", error.hint) from error

    def _answered(self, connection: BlockingConnection, sent: list[bytes], deadline: float) -> list[Any]:
        replies = connection.exchange(sent, deadline)
        for reply in replies:
            if isinstance(reply, Exception) and error_word_of(reply) not in _ANSWERS:
                raise failure_of(reply)
        return replies

    def _connected(self, deadline: float) -> BlockingConnection:
        if self._connection is None or self._connection.closed:
            self._connection = self._opened(deadline)
        return self._connection

    def _opened(self, deadline: float) -> BlockingConnection:
        address = self._address
        if address.topology is Topology.SENTINEL:
            steps = find_master(address, asking=self._asking, reading=self._data)
            found: BlockingConnection = performed(steps, deadline)
            return found
        node = address.nodes[0]
        if address.topology is Topology.CLUSTER:
            slots: SlotMap = performed(find_slots(address.nodes, self._asking), deadline)
            holder = slots[self._slot]
            if holder is None:
                raise StoreFailure(f"no node of the cluster serves slot {self._slot}", error_word="CLUSTERDOWN")
            node = holder
        return connect(node, self._data, deadline)

    def _unavailable(self, reason: str, hint: str) -> Unavailable:
        return Unavailable(
            self._part,
            reason,
            retry_after_s=RETRY_AFTER_S,
            hint=hint or "check that Redis or Valkey is up; a later call connects again by itself",
        )
