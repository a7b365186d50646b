"""A store of hashes in memory that answers packed commands, for tests that need no server."""

from collections.abc import Mapping, Sequence

import hiredis

from skewless.features.online_store import Reply


def answer(commands: Sequence[bytes], hashes: Mapping[bytes, Mapping[bytes, bytes]]) -> list[Reply]:
    """What Redis answers to HMGET and HGETALL commands; raises AssertionError for any other."""
    reader = hiredis.Reader()
    replies: list[Reply] = []
    for command in commands:
        reader.feed(command)
        name, key, *fields = reader.gets()
        assert reader.gets() is False, "more than one command was packed into one"
        stored = hashes.get(key, {})
        if name == b"HMGET":
            replies.append([stored.get(field) for field in fields])
        else:
            assert (name, fields) == (b"HGETALL", [])
            replies.append([part for item in stored.items() for part in item])
    return replies
