"""What a Redis server's answers mean to a read, without any I/O: an error may be about one key, or about the store."""

from collections.abc import Sequence
from typing import Any

import hiredis

from skewless.errors import Unavailable
from skewless.features.online_store import Reply
from skewless.limits import RETRY_AFTER_S

PART = "online store"

_ABOUT_ONE_KEY = frozenset({"WRONGTYPE", "NOSCRIPT"})
"""Errors of one command alone: its key is no hash, or the server has not been told its script."""
_UNKNOWN_COMMAND = "ERR unknown command"
_NO_MASTER = frozenset({"READONLY", "MASTERDOWN"})
_ACL = "give its ACL user +ping +hmget +hgetall on the features' keys; docs/adr/0011 lists what each topology needs"
_LOGIN = "check the user and password in the store's URL"
_MEANINGS: dict[str, tuple[str, str]] = {
    "LOADING": ("it is loading its data", "wait; it answers when its file is read"),
    "BUSY": ("it is busy with a script", "end the script with SCRIPT KILL"),
    "NOAUTH": ("it wants a password", _LOGIN),
    "WRONGPASS": ("it refused the user or password", _LOGIN),
    "NOPERM": ("its user may not do this", _ACL),
    "DENIED": ("it is in protected mode", "bind it to an address on purpose, or give it a password"),
    "CLUSTERDOWN": ("the cluster is down", "look at CLUSTER INFO; a slot without a master stops all of it"),
    "MASTERDOWN": ("it is a replica that lost its master", "look at INFO replication"),
    "READONLY": ("it is a replica", "use redis+sentinel:// so that the master is followed"),
    "TRYAGAIN": ("its slots are being moved", "try again"),
    "OOM": ("it is out of memory", "raise maxmemory, or remove entities"),
    "MISCONF": ("it cannot save its data", "look at its log; the disk may be full"),
    "MOVED": ("it is a node of a cluster", "use redis+cluster:// in the store's URL"),
    "ASK": ("it is a node of a cluster", "use redis+cluster:// in the store's URL"),
}


def packed(*parts: str | bytes | int) -> bytes:
    """A complete command.

    >>> packed("PING")
    b'*1\\r\\n$4\\r\\nPING\\r\\n'
    """
    command: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub asks for exactly one part
    return command


PING = packed("PING")


class StoreFailure(Exception):
    """Why a server, or what it said, cannot be used. The adapters' public methods raise it as Unavailable.

    `error_word` is the first word of Redis's error, empty where the connection failed. `unanswered` is whether the
    server sent nothing at all after the commands of the call were handed to it: the connection was dead already.
    """

    def __init__(self, reason: str, *, hint: str = "", error_word: str = "", unanswered: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.error_word = error_word
        self.unanswered = unanswered

    def again(self) -> "StoreFailure":
        """The same for another caller: an exception keeps the trace of where it was raised."""
        return StoreFailure(self.reason, hint=self.hint, error_word=self.error_word, unanswered=self.unanswered)

    def unavailable(self) -> Unavailable:
        """What callers of the store are told."""
        hint = self.hint or "check that Redis or Valkey is up; a later read connects again by itself"
        return Unavailable(PART, self.reason, retry_after_s=RETRY_AFTER_S, hint=hint)

    def calls_for_another_try(self, *, moves: bool) -> bool:
        """Whether a fresh connection is worth it, once: this one was dead when used, or leads to no master.

        `moves` is whether a fresh connection may lead to another server.
        """
        return self.unanswered or (moves and self.error_word in _NO_MASTER)


def error_word_of(error: Exception) -> str:
    """The first word of a Redis error.

    >>> error_word_of(hiredis.ReplyError("WRONGTYPE Operation against a key"))
    'WRONGTYPE'
    """
    return str(error).partition(" ")[0]


def failure_of(error: Exception) -> StoreFailure:
    """A server's error that is not about one key, with what to do about it."""
    error_word = error_word_of(error)
    meaning, hint = _MEANINGS.get(error_word, ("it answered an error", ""))
    return StoreFailure(f"{meaning} ({error})", hint=hint, error_word=error_word)


def settled(replies: list[Any]) -> list[Reply]:
    """The replies of a read, each an array or an error about its own key. Raises StoreFailure for any other error.

    A RESP3 map is told as the array that RESP2 would give. The list is changed in place and returned.
    """
    if set(map(type, replies)) == {list}:
        return replies
    for index, reply in enumerate(replies):
        replies[index] = settled_reply(reply)
    return replies


def settled_reply(reply: Any) -> Reply:
    """One reply of a read, as `settled`.

    >>> settled_reply({b"field": b"value"})
    [b'field', b'value']
    """
    if isinstance(reply, list):
        return reply
    if isinstance(reply, dict):
        return [part for pair in reply.items() for part in pair]
    if not isinstance(reply, Exception):
        raise StoreFailure(f"it answered a read with {type(reply).__name__}, not with an array")
    if error_word_of(reply) in _ABOUT_ONE_KEY:
        return reply
    raise failure_of(reply)


def flags(replies: Sequence[Any]) -> list[bool] | None:
    """What commands that answer 1 or 0 answered; 0 for an error about one key, None for a command that is not known.

    >>> flags([1, 0]), flags([hiredis.ReplyError("ERR unknown command 'HSETEX'")])
    ([True, False], None)
    """
    if set(map(type, replies)) <= {int}:
        return [bool(reply) for reply in replies]
    told = []
    for reply in replies:
        if isinstance(reply, Exception) and str(reply).startswith(_UNKNOWN_COMMAND):
            return None
        if isinstance(reply, Exception) and error_word_of(reply) not in _ABOUT_ONE_KEY:
            raise failure_of(reply)
        told.append(reply == 1)
    return told


def check_pong(replies: Sequence[Any]) -> None:
    """Return when a PING was answered. Raises StoreFailure."""
    if isinstance(replies[0], Exception):
        raise failure_of(replies[0])
