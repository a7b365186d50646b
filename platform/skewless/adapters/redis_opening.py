"""How a connection begins, and how the master is found, without any I/O. Both adapters perform the same steps.

A procedure that needs several servers is a generator: it yields a step, is sent the step's outcome, and returns its
result. An outcome is never raised into it: a server that failed is a StoreFailure to go on from.
"""

import ssl
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.adapters.redis_replies import PING, StoreFailure, check_pong, error_word_of, failure_of, packed
from skewless.adapters.redis_slots import CLUSTER_SLOTS, slot_map
from skewless.adapters.redis_url import Credentials, Node, StoreAddress, Topology

Check = Callable[[Any], None]
"""Raises StoreFailure where a reply means that the connection cannot be used."""

_DEFAULT_USER = "default"


@dataclass(frozen=True, slots=True)
class Opening:
    """The commands that a new connection begins with, in one write, and what their replies must be."""

    commands: tuple[bytes, ...]
    checks: tuple[Check, ...]
    tls: ssl.SSLContext | None = None

    def check(self, replies: Sequence[Any]) -> None:
        """Raises StoreFailure for the first reply that is wrong."""
        for check, reply in zip(self.checks, replies, strict=True):
            check(reply)


@dataclass(frozen=True, slots=True)
class Ask:
    """A step: connect, ask one question, close. The outcome is the reply, also where that is an error."""

    node: Node
    opening: Opening
    question: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """A step: connect. The outcome is the open connection."""

    node: Node
    opening: Opening


Steps = Generator[Ask | Connect, Any, Any]
"""A procedure over several servers."""


def data_opening(address: StoreAddress, tls: ssl.SSLContext | None, *, tracked: bool = False) -> Opening:
    """The opening of a connection that reads: RESP2, or RESP3 with invalidations where tracked."""
    steps: list[tuple[bytes, Check]] = [_login(address.credentials, resp3=tracked)]
    if address.database:
        steps.append((packed("SELECT", str(address.database)), _check_no_error))
    if address.topology is Topology.SENTINEL:
        steps.append((packed("ROLE"), _check_master))
    if tracked:
        steps.append((packed("CLIENT", "TRACKING", "ON"), _check_no_error))
    return Opening(tuple(command for command, _ in steps), tuple(check for _, check in steps), tls)


def question_opening(credentials: Credentials, tls: ssl.SSLContext | None) -> Opening:
    """The opening of a connection for one question to a sentinel or a cluster's node."""
    command, check = _login(credentials, resp3=False)
    return Opening((command,), (check,), tls)


def find_master(address: StoreAddress, *, asking: Opening, reading: Opening) -> Steps:
    """Connects to the master that the sentinels name, and returns the connection. Raises StoreFailure.

    Sentinels are asked in the URL's order until one names a server that says itself that it is a master: one that
    was cut off may still name the server that was it before.
    """
    question = packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
    problems: list[str] = []
    tried: set[Node] = set()
    for sentinel in address.nodes:
        reply = yield Ask(sentinel, asking, question)
        master = _named_master(reply)
        if isinstance(master, str):
            problems.append(f"sentinel {sentinel}: {master}")
        elif master not in tried:
            tried.add(master)
            outcome = yield Connect(master, reading)
            if not isinstance(outcome, StoreFailure):
                return outcome
            problems.append(outcome.reason)
    raise StoreFailure(
        f"no master of `{address.service}` was found ({'; '.join(problems)})",
        hint="check the service's name in the store's URL, and SENTINEL MASTERS on a sentinel",
    )


def find_slots(nodes: Iterable[Node], asking: Opening) -> Steps:
    """The SlotMap of the first node that has one. Raises StoreFailure."""
    problems: list[str] = []
    for node in dict.fromkeys(nodes):
        reply = yield Ask(node, asking, CLUSTER_SLOTS)
        try:
            return slot_map(reply, node)
        except StoreFailure as failure:
            problems.append(failure.reason)
    raise StoreFailure(f"no node of the cluster said who serves which slot ({'; '.join(problems)})")


def _named_master(reply: Any) -> Node | str:
    """The server that a sentinel names, or why it names none."""
    if isinstance(reply, Exception):
        return str(reply)
    if reply is None:
        return "it knows no service of that name"
    host, port = reply
    return Node(host.decode(), int(port))


def _login(credentials: Credentials, *, resp3: bool) -> tuple[bytes, Check]:
    """The first command. A server that refuses strangers says so in its reply, so there always is one."""
    login = (credentials.username or _DEFAULT_USER, credentials.password)
    if resp3:
        return packed("HELLO", "3", *(("AUTH", *login) if credentials else ())), _check_login
    if not credentials:
        return PING, lambda reply: check_pong((reply,))
    # The form with one argument is the only one that servers before version 6 know.
    return packed("AUTH", *(login if credentials.username else login[1:])), _check_login


def _check_login(reply: Any) -> None:
    if not isinstance(reply, Exception):
        return
    error_word = error_word_of(reply)
    if error_word in ("WRONGPASS", "NOAUTH", "NOPERM", "LOADING", "DENIED", "MASTERDOWN"):
        raise failure_of(reply)
    # The text of any other error may repeat what was sent, and so the password.
    raise StoreFailure(
        f"it refused to be logged in to ({error_word})",
        hint="check the user and password in its URL, and that the server is of version 6 or later",
        error_word=error_word,
    )


def _check_no_error(reply: Any) -> None:
    if isinstance(reply, Exception):
        raise failure_of(reply)


def _check_master(reply: Any) -> None:
    # A user that may not ask is no reason to refuse: the sentinels' word has to do then.
    if isinstance(reply, Exception):
        if error_word_of(reply) != "NOPERM":
            raise failure_of(reply)
    elif reply[0] != b"master":
        raise StoreFailure("the server that the sentinels name as master says it is a replica", error_word="READONLY")
