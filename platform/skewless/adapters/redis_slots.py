"""A cluster's hash slots and the progress of one read through it, without any I/O. Both adapters drive the same one."""

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skewless.adapters.redis_replies import StoreFailure, error_word_of, failure_of, packed, settled_reply
from skewless.adapters.redis_url import Node
from skewless.features.online_store import Reply
from skewless.limits import ONLINE_STORE_ROUNDS_MAX

SLOTS = 16_384
CLUSTER_SLOTS = packed("CLUSTER", "SLOTS")
_ASKING = packed("ASKING")
_NO_PLACE = -1
"""Where the reply to ASKING goes."""

SlotMap = Sequence[Node | None]
"""The master of each slot, None where the cluster names none."""


def key_slot(key: bytes) -> int:
    """The slot of a key: CRC16 of it, or of what stands between its first `{` and the next `}` (cluster spec).

    >>> key_slot(b"123456789"), key_slot(b"{123456789}x"), key_slot(b"{}123456789") == key_slot(b"123456789")
    (12739, 12739, False)
    """
    opened = key.find(b"{")
    if opened >= 0:
        closed = key.find(b"}", opened + 1)
        if closed > opened + 1:
            key = key[opened + 1 : closed]
    return crc_hqx(key, 0) % SLOTS


def slot_map(reply: Any, asked: Node) -> SlotMap:
    """What a node's CLUSTER SLOTS says. A node that does not know its own host is meant by the host it was asked at.

    Raises StoreFailure where the reply is an error, or names no master.
    """
    if isinstance(reply, StoreFailure):
        raise reply
    if isinstance(reply, Exception):
        if "cluster support disabled" in str(reply):
            raise StoreFailure(f"{asked} is no node of a cluster", hint="use redis:// in the store's URL")
        raise failure_of(reply)
    masters: list[Node | None] = [None] * SLOTS
    for first, last, master, *_ in reply:
        host = (master[0] or b"").decode()
        node = Node(asked.host if host in ("", "?") else host, int(master[1]))
        masters[first : last + 1] = [node] * (last + 1 - first)
    if not reply:
        raise StoreFailure(f"{asked} knows of no slot that is served")
    return masters


@dataclass(slots=True)
class Group:
    """The commands of one round for one node; `places` says which command of the read each reply answers."""

    commands: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class ClusterRead:
    """One read: grouped by node, sent, taken, and sent again where a node says that a slot lives elsewhere.

    ::

        while not (read := ...).finished:
            groups = read.groups(slots)                   {node: Group}
            outcomes = ...                                {node: its replies, or StoreFailure}
            read.take(outcomes)
            slots = ... where read.stale                  the map was wrong, or a node is away
    """

    def __init__(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> None:
        self._slots = [key_slot(key) for key in keys]
        self._commands = commands
        self._replies: list[Reply | None] = [None] * len(commands)
        self._pending: Sequence[int] = range(len(commands))
        self._redirects: dict[int, tuple[Node, bool]] = {}
        self._groups: dict[Node, Group] = {}
        self._failed: dict[Node, StoreFailure] = {}
        self._rounds = 0
        self.stale = False

    @property
    def finished(self) -> bool:
        """Whether every command has its reply."""
        return not self._pending

    def replies(self) -> list[Reply]:
        """One reply per command, in order, once finished."""
        assert self.finished, "asked before every command was answered"
        return self._replies  # type: ignore[return-value]  # finished: none is None

    def groups(self, slots: SlotMap) -> dict[Node, Group]:
        """What to send next, by node. Raises StoreFailure where that cannot be known, or was tried often enough."""
        self._rounds += 1
        if self._rounds > ONLINE_STORE_ROUNDS_MAX:
            raise StoreFailure(
                f"the cluster's nodes sent a read elsewhere {ONLINE_STORE_ROUNDS_MAX} times",
                hint="its slots are being moved, or its nodes disagree: look at CLUSTER NODES on each",
            )
        self.stale = False
        self._groups = {}
        for index in self._pending:
            node, asking = self._redirects.get(index) or (slots[self._slots[index]], False)
            if node is None:
                raise StoreFailure(f"no node of the cluster serves slot {self._slots[index]}", error_word="CLUSTERDOWN")
            group = self._groups.get(node)
            if group is None:
                group = self._groups[node] = Group()
            if asking:
                group.commands.append(_ASKING)
                group.places.append(_NO_PLACE)
            group.commands.append(self._commands[index])
            group.places.append(index)
        self._redirects = {}
        return self._groups

    def take(self, outcomes: dict[Node, list[Any] | StoreFailure]) -> None:
        """Put the replies of a round in their places. Raises StoreFailure where one is an error about the store."""
        pending: list[int] = []
        for node, group in self._groups.items():
            outcome = outcomes[node]
            if isinstance(outcome, StoreFailure):
                self._node_failed(node, outcome)
                pending += (index for index in group.places if index != _NO_PLACE)
                continue
            for index, reply in zip(group.places, outcome, strict=True):
                if index != _NO_PLACE and not self._placed(index, reply, node):
                    pending.append(index)
        self._pending = pending

    def _node_failed(self, node: Node, failure: StoreFailure) -> None:
        """A node may have been found dead, or replaced since the map was drawn, once; then its failure is told."""
        if node in self._failed:
            raise failure.again()
        self._failed[node] = failure
        self.stale = True

    def _placed(self, index: int, reply: Any, node: Node) -> bool:
        """Whether the reply is the command's; if not, it says where to go."""
        if isinstance(reply, list):
            self._replies[index] = reply
            return True
        error_word = error_word_of(reply) if isinstance(reply, Exception) else ""
        if error_word in ("MOVED", "ASK"):
            self._redirects[index] = (_target(reply, node), error_word == "ASK")
            self.stale = self.stale or error_word == "MOVED"
            return False
        if error_word == "TRYAGAIN":
            return False
        self._replies[index] = settled_reply(reply)
        return True


def _target(error: Exception, answering: Node) -> Node:
    """Where `MOVED slot host:port` sends: an empty host is that of the node which answered."""
    host, _, port = str(error).split(" ")[2].rpartition(":")
    return Node(host or answering.host, int(port))
