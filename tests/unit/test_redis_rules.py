"""The rules of a read without any I/O: whose error it is, who has a slot, where a redirect leads, who is master."""

import random
from collections.abc import Mapping
from itertools import count
from typing import Any

import hiredis
import pytest
from redis.crc import key_slot as key_slot_of_redis

from skewless.adapters.redis_opening import Ask, Connect, data_opening, find_master, find_slots, question_opening
from skewless.adapters.redis_replies import StoreFailure, settled
from skewless.adapters.redis_slots import ClusterRead, SlotMap, key_slot, slot_map
from skewless.adapters.redis_url import Credentials, Node, StoreAddress, Topology, parse_store_url
from skewless.limits import ONLINE_STORE_ROUNDS_MAX

A, B, C = Node("a", 1), Node("b", 2), Node("c", 3)
SLOTS: SlotMap = [A] * 8_192 + [B] * 8_192
WRONG_TYPE = hiredis.ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")


def test_slots_are_those_of_the_redis_client() -> None:
    rng = random.Random(17)
    keys = [bytes(rng.choices(b"a{}\x00\xff", k=rng.randrange(12))) for _ in range(2_000)]
    assert [key_slot(key) for key in keys] == [key_slot_of_redis(key) for key in keys]


def test_an_error_about_one_key_is_a_reply_and_any_other_is_the_stores() -> None:
    assert settled([[b"1"], WRONG_TYPE, {b"f": b"v"}, []]) == [[b"1"], WRONG_TYPE, [b"f", b"v"], []]
    for text in ("LOADING x", "NOPERM x", "OOM x", "ERR unknown command", "CLUSTERDOWN x", "MASTERDOWN x", "BUSY x"):
        with pytest.raises(StoreFailure, match=text):
            settled([[b"1"], hiredis.ReplyError(text)])


@pytest.mark.parametrize("reply", [None, 1, b"OK", True])
def test_an_answer_that_is_no_array_is_the_stores_failure(reply: object) -> None:
    with pytest.raises(StoreFailure, match="not with an array"):
        settled([[b"1"], reply])


def test_a_store_failure_says_what_to_do() -> None:
    with pytest.raises(StoreFailure) as caught:
        settled([hiredis.ReplyError("MOVED 1 a:1")])
    error = caught.value.unavailable()
    assert "redis+cluster://" in error.hint
    assert error.retry_after_s > 0


def read_of(*slots: int) -> ClusterRead:
    """A read whose commands say which slot they are in."""
    keys = [next(key for number in count() if key_slot(key := b"%d" % number) == slot) for slot in slots]
    return ClusterRead(keys, [b"in %d" % slot for slot in slots])


def test_a_read_is_one_group_per_node_and_its_replies_are_in_order() -> None:
    read = read_of(9_000, 1, 10_000, 2)
    groups = read.groups(SLOTS)
    assert {node: group.commands for node, group in groups.items()} == {
        B: [b"in 9000", b"in 10000"],
        A: [b"in 1", b"in 2"],
    }
    read.take({A: [[b"1"], WRONG_TYPE], B: [[b"9000"], [b"10000"]]})
    assert read.finished
    assert not read.stale
    assert read.replies() == [[b"9000"], [b"1"], [b"10000"], WRONG_TYPE]


def test_a_moved_slot_is_sent_to_where_it_is_and_the_map_is_stale() -> None:
    read = read_of(1, 2, 3)
    read.groups(SLOTS)
    read.take({A: [[b"1"], hiredis.ReplyError("MOVED 2 c:3"), hiredis.ReplyError("MOVED 3 :9")]})
    assert read.stale
    assert {node: group.commands for node, group in read.groups(SLOTS).items()} == {
        C: [b"in 2"],
        Node("a", 9): [b"in 3"],
    }
    read.take({C: [[b"2"]], Node("a", 9): [[b"3"]]})
    assert read.replies() == [[b"1"], [b"2"], [b"3"]]


def test_a_slot_on_its_way_is_asked_for_once_and_the_map_stays() -> None:
    read = read_of(1)
    read.groups(SLOTS)
    read.take({A: [hiredis.ReplyError("ASK 1 ::1:9")]})
    assert not read.stale
    ((node, group),) = read.groups(SLOTS).items()
    assert node == Node("::1", 9)
    assert len(group.commands) == 2
    assert b"ASKING" in group.commands[0]
    read.take({node: [b"OK", [b"1"]]})
    assert read.replies() == [[b"1"]]


def test_nodes_that_send_a_read_round_in_a_circle_are_left() -> None:
    read = read_of(1)
    for _ in range(ONLINE_STORE_ROUNDS_MAX):
        ((node, _group),) = read.groups(SLOTS).items()
        read.take({node: [hiredis.ReplyError("MOVED 1 b:2" if node == A else "MOVED 1 a:1")]})
    with pytest.raises(StoreFailure, match="sent a read elsewhere"):
        read.groups(SLOTS)


def test_a_slot_that_is_being_moved_is_tried_again() -> None:
    read = read_of(1)
    read.groups(SLOTS)
    read.take({A: [hiredis.ReplyError("TRYAGAIN Multiple keys request during rehashing of slot")]})
    assert {node: group.commands for node, group in read.groups(SLOTS).items()} == {A: [b"in 1"]}


def test_a_node_that_failed_is_replaced_by_the_next_map() -> None:
    read = read_of(1, 9_000)
    read.groups(SLOTS)
    read.take({A: StoreFailure("a is away"), B: [[b"9000"]]})
    assert read.stale
    assert list(read.groups([C] * 16_384)) == [C]
    read.take({C: [[b"1"]]})
    assert read.replies() == [[b"1"], [b"9000"]]


def test_a_node_that_failed_twice_is_away() -> None:
    read = read_of(1)
    read.groups(SLOTS)
    read.take({A: StoreFailure("a is away")})
    read.groups(SLOTS)
    with pytest.raises(StoreFailure, match="a is away"):
        read.take({A: StoreFailure("a is away")})


def test_a_slot_that_nobody_serves_is_a_failure() -> None:
    with pytest.raises(StoreFailure, match="no node of the cluster serves slot 1"):
        read_of(1).groups([None] * 16_384)


def test_a_map_names_the_master_of_each_slot() -> None:
    reply = [[0, 1, [b"", 7, b"id"], [b"replica", 8, b"id"]], [3, 16_383, [b"c", 3, b"id", []]]]
    slots = slot_map(reply, A)
    assert (slots[0], slots[1], slots[2], slots[3], slots[16_383]) == (Node("a", 7), Node("a", 7), None, C, C)


def performed(steps: Any, outcomes: Mapping[Node, Any]) -> tuple[Any, list[tuple[type, Node]]]:
    """The result of a procedure whose steps have the given outcomes, and the steps."""
    outcome, seen = None, []
    try:
        while True:
            step = steps.send(outcome)
            seen.append((type(step), step.node))
            outcome = outcomes[step.node].pop(0)
    except StopIteration as finished:
        return finished.value, seen


ADDRESS = StoreAddress(Topology.SENTINEL, (A, B), service="features")
OPENING = question_opening(Credentials(), None)


def test_the_master_is_asked_for_until_a_sentinel_names_one_that_says_so_itself() -> None:
    connection = object()
    outcomes = {
        A: [[b"old", b"1"]],
        Node("old", 1): [StoreFailure("it is a replica")],
        B: [[b"c", b"3"]],
        C: [connection],
    }
    result, seen = performed(find_master(ADDRESS, asking=OPENING, reading=OPENING), outcomes)
    assert result is connection
    assert seen == [(Ask, A), (Connect, Node("old", 1)), (Ask, B), (Connect, C)]


def test_no_master_is_a_failure_that_says_what_each_sentinel_said() -> None:
    outcomes = {A: [StoreFailure("a is away")], B: [None]}
    with pytest.raises(StoreFailure, match="sentinel a:1: a is away; sentinel b:2: it knows no service"):
        performed(find_master(ADDRESS, asking=OPENING, reading=OPENING), outcomes)


def test_the_map_is_that_of_the_first_node_that_has_one() -> None:
    outcomes = {A: [StoreFailure("a is away")], B: [[]], C: [[[0, 16_383, [b"c", 3, b"id"]]]]}
    result, seen = performed(find_slots((A, B, A, C), OPENING), outcomes)
    assert list(result) == [C] * 16_384
    assert [node for _, node in seen] == [A, B, C]


def test_a_replica_is_no_master_and_a_user_who_may_not_ask_takes_the_sentinels_word() -> None:
    opening = data_opening(ADDRESS, None)
    opening.check([b"PONG", [b"master", 0, []]])
    opening.check([b"PONG", hiredis.ReplyError("NOPERM User has no permissions to run the 'role' command")])
    with pytest.raises(StoreFailure, match="it is a replica") as caught:
        opening.check([b"PONG", [b"slave", b"a", 1, b"connected", 0]])
    assert caught.value.calls_for_another_try(moves=True)
    assert not caught.value.calls_for_another_try(moves=False)


def test_an_error_that_repeats_the_login_does_not_show_it() -> None:
    opening = data_opening(parse_store_url("redis://user:secret@here"), None)
    with pytest.raises(StoreFailure) as caught:
        opening.check([hiredis.ReplyError("ERR unknown command 'AUTH', with args beginning with: 'user' 'secret'")])
    assert "secret" not in str(caught.value.unavailable())
