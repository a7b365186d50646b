"""Leases on every kind of database: one holder at a time, found out by whoever lost one, free again in time."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import TextClause, text

from harness.servers import wait_until
from skewless.adapters.lease_keeper import kept_leases
from skewless.errors import Conflict
from skewless.registry.database import engine
from skewless.registry.leases import Lease, Leases, check, owner_text
from skewless.registry.transactions import Transactions

LONG_S = 600.0


@pytest.fixture
def leases(registry_url: str) -> Iterator[Leases]:
    """Leases in an empty database."""
    made = Leases(engine(registry_url))
    yield made
    made.close()


def test_a_lease_is_held_by_one_who_is_named_to_others(leases: Leases) -> None:
    held = leases.take("view:weather", "ann@there pid 7", lease_s=LONG_S)
    with pytest.raises(Conflict, match="`view:weather` is held by ann@there pid 7 since") as caught:
        leases.take("view:weather", "bob", lease_s=LONG_S)
    assert "ends by itself in" in caught.value.hint
    assert leases.holder("view:weather") == held
    assert leases.take("view:other", "bob", lease_s=LONG_S).token == 1
    leases.release(held)
    assert leases.holder("view:weather") is None
    assert leases.take("view:weather", "bob", lease_s=LONG_S).token == held.token + 1


def test_some_leases_are_taken_all_or_none(leases: Leases) -> None:
    leases.take("b", "ann", lease_s=LONG_S)
    with pytest.raises(Conflict, match="`b` is held by ann"):
        leases.take_all(["a", "b", "c"], "bob", lease_s=LONG_S)
    assert [leases.holder(name) is None for name in "abc"] == [True, False, True]


def test_a_lease_ends_by_itself_and_its_holder_finds_out(leases: Leases) -> None:
    held = leases.take("a", "ann", lease_s=0.2)
    wait_until(lambda: leases.holder("a") is None, "the lease ends")
    with pytest.raises(Conflict, match="`a` is not held any more\n"):
        leases.renew(held, lease_s=LONG_S)
    taken = leases.take("a", "bob", lease_s=LONG_S)
    with pytest.raises(Conflict, match="not held any more; bob has it now"):
        leases.renew(held, lease_s=LONG_S)
    leases.release(held)  # of the one that was lost: the other stays
    assert leases.holder("a") == taken
    assert leases.renew(taken, lease_s=2 * LONG_S).expires_time > taken.expires_time


def test_a_transaction_of_one_who_lost_a_lease_changes_nothing(leases: Leases, registry_url: str) -> None:
    held = leases.take("a", "ann", lease_s=LONG_S)
    transactions = Transactions(engine(registry_url), conflict_hint="")
    statement = text("UPDATE leases SET owner = 'changed'")
    _write(transactions, statement, held)
    assert leases.holder("a") == Lease("a", "changed", held.token, held.expires_time)
    leases.release(held)
    leases.take("a", "bob", lease_s=LONG_S)
    with pytest.raises(Conflict, match="`a` is not held any more"):
        _write(transactions, statement, held)
    kept = leases.holder("a")
    assert kept is not None
    assert kept.owner == "bob"
    transactions.close()


def test_of_many_who_want_a_lease_at_once_one_gets_it(registry_url: str) -> None:
    parts = [Leases(engine(registry_url)) for _ in range(6)]
    begin, won, lost = threading.Barrier(len(parts)), [], []

    def take(number: int) -> None:
        begin.wait()
        try:
            won.append(parts[number].take("a", f"thread {number}", lease_s=LONG_S))
        except Conflict as error:
            lost.append(error)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, len(parts) - 1)
    for part in parts:
        part.close()


def test_leases_are_renewed_while_work_goes_on_and_given_back_after_it(leases: Leases) -> None:
    with kept_leases(leases, ["b", "a", "a"], owner_text(), lease_s=LONG_S, renew_s=0.01) as keeper:
        first = leases.holder("a")
        assert first is not None
        assert first.owner == owner_text()
        wait_until(lambda: (leases.holder("a") or first).expires_time > first.expires_time, "it is renewed")
        keeper.require()
        assert set(keeper.held) == {"a", "b"}
        leases.release(keeper.held["b"])
        leases.take("b", "somebody", lease_s=LONG_S)
        wait_until(lambda: _is_lost(keeper.require), "the loss is noticed")
    assert leases.holder("a") is None
    kept = leases.holder("b")
    assert kept is not None
    assert kept.owner == "somebody"


def test_a_lease_that_is_free_can_be_forgotten(leases: Leases) -> None:
    held = leases.take("a", "ann", lease_s=LONG_S)
    assert not leases.forget("a")
    leases.release(held)
    assert leases.forget("a")
    assert not leases.forget("a")


def _write(transactions: Transactions, statement: TextClause, held: Lease) -> None:
    with transactions.write() as session:
        session.execute(statement)
        check(session, held)


def _is_lost(require: object) -> bool:
    try:
        require()  # type: ignore[operator]  # it is a method
    except Conflict:
        return True
    return False
