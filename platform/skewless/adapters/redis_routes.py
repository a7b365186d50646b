"""Ways to the servers of a store over asyncio: one server (also found through sentinels), or a cluster's masters."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from skewless.adapters.redis_connection import Connection, ask, connect
from skewless.adapters.redis_link import Link, SharedAttempt
from skewless.adapters.redis_opening import (
    Ask,
    Opening,
    Steps,
    data_opening,
    find_master,
    find_slots,
    question_opening,
)
from skewless.adapters.redis_replies import PING, StoreFailure, check_pong, settled
from skewless.adapters.redis_slots import ClusterRead, Group, SlotMap
from skewless.adapters.redis_url import Node, StoreAddress, Topology
from skewless.features.online_store import Invalidate, Reply

T = TypeVar("T")


class Route(Protocol):
    """Takes commands to whichever server holds their keys."""

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], timeout_s: float, /) -> list[Reply]:
        """As `OnlineStore.read`, but raises StoreFailure where that raises Unavailable."""
        ...

    async def ping(self, timeout_s: float) -> None:
        """Return when every server answers. Raises StoreFailure or DeadlineExceeded."""
        ...

    async def close(self) -> None: ...


def open_route(address: StoreAddress, *, invalidate: Invalidate | None = None) -> Route:
    """A way that connects when first used. With `invalidate`, over tracked connections that tell it of changes.

    Raises InvalidSettings where the files of its TLS cannot be used.
    """
    tls = address.tls.context() if address.tls else None
    reading = data_opening(address, tls, tracked=invalidate is not None)
    if address.topology is Topology.CLUSTER:
        return ClusterRoute(address.nodes, reading, question_opening(address.credentials, tls), invalidate)
    if address.topology is Topology.SINGLE:
        return MasterRoute(Link(lambda: _connected(address.nodes[0], reading, invalidate)), moves=False)
    asking = question_opening(address.sentinel_credentials, tls)
    return MasterRoute(
        Link(lambda: _performed(find_master(address, asking=asking, reading=reading), invalidate)), moves=True
    )


class MasterRoute:
    """One server holds everything. Where it `moves`, its link finds the server that is master now."""

    def __init__(self, link: Link, *, moves: bool) -> None:
        self._link = link
        self._moves = moves

    async def read(self, _keys: Sequence[bytes], commands: Sequence[bytes], timeout_s: float, /) -> list[Reply]:
        return await self._answered(commands, timeout_s, settled)

    async def ping(self, timeout_s: float) -> None:
        await self._answered((PING,), timeout_s, check_pong)

    async def close(self) -> None:
        await self._link.close()

    async def _answered(self, commands: Sequence[bytes], timeout_s: float, understand: Callable[[list[Any]], T]) -> T:
        """The understood replies. A connection that was dead when used, or leads to no master, is replaced once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        connection = self._link.connection or await self._link.connected(deadline)
        try:
            return understand(await connection.start(commands, deadline - loop.time()))
        except StoreFailure as failure:
            if not failure.calls_for_another_try(moves=self._moves):
                raise
            connection.cut(failure.reason)
        connection = await self._link.connected(deadline)
        return understand(await connection.start(commands, deadline - loop.time()))


class ClusterRoute:
    """Each master holds some slots. A read is one write and one wait per master that it concerns."""

    def __init__(
        self, seeds: Sequence[Node], reading: Opening, asking: Opening, invalidate: Invalidate | None = None
    ) -> None:
        self._seeds = seeds
        self._reading = reading
        self._asking = asking
        self._invalidate = invalidate
        self._links: dict[Node, Link] = {}
        self._slots: SlotMap = ()
        self._stale = True
        self._drawing = SharedAttempt(self._draw)

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], timeout_s: float, /) -> list[Reply]:
        deadline = asyncio.get_running_loop().time() + timeout_s
        read = ClusterRead(keys, commands)
        try:
            while not read.finished:
                if self._stale:
                    await self._drawing.result(deadline)
                read.take(await self._exchange(read.groups(self._slots), deadline))
                self._stale = self._stale or read.stale
        except StoreFailure:
            # Whatever it was, the map may have a part in it: the next read draws it anew.
            self._stale = True
            raise
        return read.replies()

    async def ping(self, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        if self._stale:
            await self._drawing.result(deadline)
        pings = {node: Group([PING], [0]) for node in self._slots if node is not None}
        for node, outcome in (await self._exchange(pings, deadline)).items():
            if isinstance(outcome, StoreFailure):
                self._stale = True
                raise StoreFailure(f"{node}: {outcome.reason}", hint=outcome.hint)
            check_pong(outcome)

    async def close(self) -> None:
        await self._drawing.stop()
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def _exchange(self, groups: dict[Node, Group], deadline: float) -> dict[Node, list[Any] | StoreFailure]:
        """Every node's replies, or why there are none. Raises DeadlineExceeded."""
        outcomes: dict[Node, list[Any] | StoreFailure] = {}
        sent: dict[Node, asyncio.Future[list[Any]]] = {}
        try:
            for node, group in groups.items():
                try:
                    sent[node] = self._send(node, group.commands, deadline)
                except StoreFailure as failure:
                    outcomes[node] = failure
            for node, future in sent.items():
                try:
                    outcomes[node] = await future
                except StoreFailure as failure:
                    outcomes[node] = failure
        finally:
            for future in sent.values():
                _forget(future)
        return outcomes

    def _send(self, node: Node, commands: Sequence[bytes], deadline: float) -> "asyncio.Future[list[Any]]":
        loop = asyncio.get_running_loop()
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = Link(lambda: _connected(node, self._reading, self._invalidate))
        connection = link.connection
        if connection is None:
            return loop.create_task(_sent_when_connected(link, commands, deadline))
        return connection.start(commands, deadline - loop.time())

    async def _draw(self) -> None:
        """Draw the map of slots, first asking nodes that are connected to: one that is away costs time."""
        connected = [node for node, link in self._links.items() if link.connection is not None]
        known = [node for node in self._slots if node is not None]
        slots = await _performed(find_slots((*connected, *known, *self._seeds), self._asking), None)
        if self._slots and slots != self._slots and self._invalidate is not None:
            self._invalidate(None)
        self._slots = slots
        self._stale = False
        for node in self._links.keys() - set(slots):
            self._links.pop(node).leave()


async def _sent_when_connected(link: Link, commands: Sequence[bytes], deadline: float) -> list[Any]:
    connection = await link.connected(deadline)
    return await connection.start(commands, deadline - asyncio.get_running_loop().time())


async def _connected(node: Node, opening: Opening, invalidate: Invalidate | None) -> Connection:
    connection = await connect(node, opening, invalidate)
    if invalidate is not None:
        invalidate(None)
        connection.keep_tried()
    return connection


async def _performed(steps: Steps, invalidate: Invalidate | None) -> Any:
    """The result of a procedure. Raises StoreFailure."""
    outcome: Any = None
    try:
        while True:
            step = steps.send(outcome)
            try:
                if isinstance(step, Ask):
                    outcome = await ask(step.node, step.opening, step.question)
                else:
                    outcome = await _connected(step.node, step.opening, invalidate)
            except StoreFailure as failure:
                outcome = failure
    except StopIteration as finished:
        return finished.value


def _forget(future: "asyncio.Future[list[Any]]") -> None:
    """Nobody waits for it any more; a failure that is not looked at would be reported as forgotten."""
    if not future.cancel() and not future.cancelled():
        future.exception()
