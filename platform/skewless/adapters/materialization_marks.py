"""What the online store itself says of materialization: which run of each view it holds, and how far another one came.

A hash of its own, outside Feast's keys. The mark of a finished run is the last thing that the run writes; a store and
its replicas keep the order of writes, so one that lost any of the run's rows does not have its mark either, and neither
does one that was emptied. So it is with each part of a run that is under way: its mark comes after its rows, in place
of the mark of the part before it. Of a cluster this holds for the node that the hash lies on.
"""

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.errors import Conflict, Unavailable
from skewless.ingest_limits import ONLINE_WRITE_TIMEOUT_S

_KEY = b"skewless:materialized:"
_DONE, _BEGUN = b"done:", b"begun:"
_PARTS = " parts:"
_SET_IF_HELD = (
    "local held = redis.call('HGET', KEYS[1], ARGV[1]) or '' "
    "local parts = string.sub(held, 1, #ARGV[2]) == ARGV[2] and tonumber(string.sub(held, #ARGV[2] + 1)) "
    "if not parts or parts < tonumber(ARGV[3]) then return {false} end "
    "redis.call('HSET', KEYS[1], ARGV[4], ARGV[5]) return {1}"
)
_SET = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return {1}"
_REMOVE = "redis.call('DEL', KEYS[1]) return {1}"


class MaterializationMarks:
    """The marks of one project. Every method raises Unavailable as the store does."""

    def __init__(self, store: BlockingRedisOnlineStore, project: str) -> None:
        self._store = store
        self._key = _KEY + project.encode()

    def done(self, view: str) -> str | None:
        """The run of a view that the store holds all of; None where it holds none."""
        return self._read(_DONE + view.encode())

    def begun(self, view: str) -> tuple[str, int] | None:
        """The run of a view that was begun last in this store, and how many of its parts the store holds."""
        run_id, _, parts = (self._read(_BEGUN + view.encode()) or "").partition(_PARTS)
        return (run_id, int(parts)) if parts else None

    def mark_begun(self, view: str, run_id: str) -> None:
        """A run begins to write."""
        self._do(packed("EVAL", _SET, 1, self._key, _BEGUN + view.encode(), f"{run_id}{_PARTS}0"))

    def mark_part(self, view: str, run_id: str, parts_done: int) -> None:
        """One more part of a run was written. Raises Unavailable where the store does not hold those before it."""
        self._mark(view, run_id, parts_done - 1, _BEGUN, f"{run_id}{_PARTS}{parts_done}")

    def mark_done(self, view: str, run_id: str, parts: int) -> None:
        """All rows of a run were written, in so many parts. Raises Unavailable where the store does not hold them."""
        self._mark(view, run_id, parts, _DONE, run_id)

    def _mark(self, view: str, run_id: str, parts_held: int, kind: bytes, value: str) -> None:
        begun, prefix = _BEGUN + view.encode(), f"{run_id}{_PARTS}"
        command = packed("EVAL", _SET_IF_HELD, 1, self._key, begun, prefix, parts_held, kind + view.encode(), value)
        if self._do(command) == [None]:
            raise Unavailable(
                "online store",
                f"it holds no more the {parts_held} parts that were written of a run of `{view}`",
                hint="it went back in time, or something else fills it; run it again, which goes on where the store is",
            )

    def forget(self) -> None:
        """The store is emptied: it holds no run of any view."""
        self._do(packed("EVAL", _REMOVE, 1, self._key))

    def _read(self, field: bytes) -> str | None:
        (value,) = self._do(packed("HMGET", self._key, field))
        return None if value is None else value.decode()

    def _do(self, command: bytes) -> list[bytes | None]:
        (reply,) = self._store.read((self._key,), (command,), timeout_s=ONLINE_WRITE_TIMEOUT_S)
        if isinstance(reply, Exception):
            raise Conflict(
                f"the key `{self._key.decode()}` of the online store cannot be used: {reply}",
                hint="something else than a hash lies there; remove it",
            )
        return reply
