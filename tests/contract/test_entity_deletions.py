"""What the registry knows of deleted entities, on SQLite and PostgreSQL alike."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import Conflict, NotFound
from skewless.features.chosen_entities import ChosenEntities
from skewless.registry import database
from skewless.registry.audit import AuditTrail
from skewless.registry.entity_copies import DELETED, RESULTS, CopiesOf, EntityCopies
from skewless.registry.entity_deletions import DeletionRequest, Deletions, DeletionState
from skewless.registry.quality_tables import QualityResultRow, QualityRunRow
from skewless.timestamps import Micros, format_timestamp

NOW = 1_000_000
PLANE = ChosenEntities({"tail": "N14228"})
UNKNOWN = -(2**63)


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
    yield made
    made.dispose()


@pytest.fixture
def deletions(engine: Engine) -> Deletions:
    return Deletions(engine, clock=lambda: Micros(NOW))


def tails(*values: str | None) -> dict[str, Column]:
    return {"tail": column_of(Dtype.STRING, list(values))}


def moments(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def kept_out(deletions: Deletions, keys: dict[str, Column], *known: int, view: str = "planes") -> list[bool]:
    found: list[bool] = deletions.kept_out(view, keys, moments(*known), moments(*known)).tolist()
    return found


def test_old_rows_of_a_deleted_entity_are_kept_out_and_new_ones_and_others_are_not(deletions: Deletions) -> None:
    rows = tails("N14228", "N14228", "N1", None)
    assert kept_out(deletions, rows, NOW, NOW + 1, NOW, NOW) == [False] * 4
    deletions.begin(DeletionRequest(PLANE))
    assert kept_out(deletions, rows, NOW, NOW + 1, NOW, NOW) == [True, False, False, False]


def test_where_no_created_time_is_known_the_event_time_decides(deletions: Deletions) -> None:
    deletions.begin(DeletionRequest(PLANE))
    rows = tails("N14228", "N14228")
    found = deletions.kept_out("planes", rows, moments(UNKNOWN, UNKNOWN), moments(NOW, NOW + 1))
    assert found.tolist() == [True, False]


def test_a_part_of_a_composite_key_keeps_out_every_entity_that_has_it(deletions: Deletions) -> None:
    deletions.begin(DeletionRequest(PLANE))
    legs = tails("N14228", "N1") | {"line": column_of(Dtype.INT64, [7, 7])}
    assert kept_out(deletions, legs, NOW, NOW) == [True, False]
    assert kept_out(deletions, {"line": column_of(Dtype.INT64, [7])}, NOW) == [False]


def test_more_keys_than_a_view_has_keep_nothing_out_of_it(deletions: Deletions) -> None:
    deletions.begin(DeletionRequest(ChosenEntities({"tail": "N14228", "line": "7"})))
    assert kept_out(deletions, tails("N14228"), NOW) == [False]
    legs = tails("N14228", "N14228") | {"line": column_of(Dtype.INT32, [7, 8])}
    assert kept_out(deletions, legs, NOW, NOW) == [True, False]


def test_only_the_views_that_were_named_keep_out(deletions: Deletions) -> None:
    deletions.begin(DeletionRequest(PLANE, views=("planes",)))
    assert kept_out(deletions, tails("N14228"), NOW) == [True]
    assert kept_out(deletions, tails("N14228"), NOW, view="legs") == [False]


def test_for_ever_keeps_out_new_rows_too_until_it_is_lifted(deletions: Deletions) -> None:
    begun = deletions.begin(DeletionRequest(PLANE, for_ever=True))
    assert kept_out(deletions, tails("N14228"), NOW + 10**9) == [True]
    deletions.lift(begun.id, actor="ada", reason="a mistake")
    assert kept_out(deletions, tails("N14228"), NOW) == [False]
    with pytest.raises(Conflict, match="lifted"):
        deletions.lift(begun.id, actor="ada", reason="again")


def test_a_deletion_counts_in_every_process_from_its_beginning(engine: Engine, deletions: Deletions) -> None:
    other = Deletions(engine)
    assert kept_out(other, tails("N14228"), NOW) == [False]
    deletions.begin(DeletionRequest(PLANE))
    assert kept_out(other, tails("N14228"), NOW) == [True]
    deletions.begin(DeletionRequest(ChosenEntities({"tail": "N1"})))
    assert kept_out(other, tails("N14228", "N1"), NOW, NOW) == [True, True]


def test_a_deletion_that_was_cut_off_goes_on_and_a_finished_one_begins_anew(deletions: Deletions) -> None:
    begun = deletions.begin(DeletionRequest(PLANE, reason="request 318"))
    deletions.note(begun.id, {"online": 3, "offline": 9})
    again = deletions.begin(DeletionRequest(PLANE))
    deletions.note(again.id, {"online": 1})
    assert again.id == begun.id
    assert deletions.deletion(begun.id).found == {"online": 3, "offline": 9}
    deletions.finish(begun, DeletionState.DONE, {"places": []})
    assert deletions.begin(DeletionRequest(PLANE)).id != begun.id


def test_a_deletion_that_goes_on_takes_what_became_known_meanwhile_unless_a_time_was_given(engine: Engine) -> None:
    now = [NOW]
    deletions = Deletions(engine, clock=lambda: Micros(now[0]))
    begun = deletions.begin(DeletionRequest(PLANE, actor="ada"))
    given = deletions.begin(DeletionRequest(PLANE, before=Micros(5)))
    now[0] = 9 * NOW
    assert kept_out(deletions, tails("N14228"), 9 * NOW) == [False]
    again = deletions.begin(DeletionRequest(PLANE, actor="bob"))
    assert (again.id, again.before) == (begun.id, 9 * NOW)
    assert kept_out(deletions, tails("N14228"), 9 * NOW) == [True]
    assert deletions.begin(DeletionRequest(PLANE, before=Micros(5))) == given
    with pytest.raises(Conflict, match="asked for again meanwhile"):
        deletions.finish(begun, DeletionState.DONE, {})
    done = deletions.finish(again, DeletionState.DONE, {})
    assert done.receipt is not None
    assert done.receipt["before"] == format_timestamp(Micros(9 * NOW))
    events = [(each.action, each.actor) for each in AuditTrail(engine).audit(subject=f"entity/{begun.id}")]
    assert events == [("begin_deletion", "ada"), ("go_on_with_deletion", "bob"), ("delete_entity", "ada")]


@pytest.mark.parametrize("value", ["Müller", 'the "boss"', "c07-smith", "a/b%c_d"])
def test_a_value_in_the_results_of_gates_is_found_however_the_database_writes_it(engine: Engine, value: str) -> None:
    run = {"suite": "s", "suite_digest": "d", "origin": "o", "batch": "b", "as_of": 0, "time": 0, "duration_us": 0}
    result = {"type": "t", "severity": "warning", "follows": "warn", "success": False}
    with Session(engine) as session:
        session.add(QualityRunRow(id="1", view="v", rows=1, set_aside=0, decision="warn", **run))
        session.flush()
        for position, word in enumerate((value, "another")):
            held = {"kwargs": {"value_set": [word]}, "observed": {"rows": [f"such as `{word}`"]}}
            session.add(QualityResultRow(run_id="1", position=position, told="", hint="", **held, **result))
        session.commit()
    copies, wanted = EntityCopies(engine), CopiesOf(ChosenEntities({"courier": value}))
    assert copies.look(wanted) == {RESULTS: 1}
    copies.erase(wanted)
    assert copies.look(wanted) == {}
    with Session(engine) as session:
        rows = list(session.scalars(select(QualityResultRow).order_by(QualityResultRow.position)))
        assert [row.kwargs["value_set"] for row in rows] == [[DELETED], ["another"]]


@pytest.mark.parametrize(
    "other",
    [
        DeletionRequest(ChosenEntities({"tail": "N1"})),
        DeletionRequest(PLANE, views=("planes",)),
        DeletionRequest(PLANE, before=Micros(5)),
        DeletionRequest(PLANE, for_ever=True),
    ],
)
def test_another_request_is_another_deletion(deletions: Deletions, other: DeletionRequest) -> None:
    assert deletions.begin(DeletionRequest(PLANE)).id != deletions.begin(other).id


def test_a_receipt_is_kept_with_its_digest_and_cannot_be_written_twice(deletions: Deletions) -> None:
    begun = deletions.begin(DeletionRequest(PLANE, actor="ada", reason="request 318"))
    deletions.note(begun.id, {"online": 3})
    done = deletions.finish(begun, DeletionState.DONE, {"places": [{"place": "online", "rows": 3}]})
    assert done.receipt is not None
    told = dict(done.receipt)
    assert told.pop("digest") == digest(told)
    assert (told["actor"], told["reason"], told["rows"], told["state"]) == ("ada", "request 318", 3, "done")
    with pytest.raises(Conflict, match="finished already"):
        deletions.finish(begun, DeletionState.PARTLY, {})


def test_a_person_finds_their_receipts_by_their_own_keys(deletions: Deletions) -> None:
    assert deletions.deletions(PLANE) == ()
    mine = deletions.begin(DeletionRequest(PLANE))
    deletions.begin(DeletionRequest(ChosenEntities({"tail": "N1"})))
    assert [each.id for each in deletions.deletions(PLANE)] == [mine.id]
    assert len(deletions.deletions()) == 2
    assert deletions.deletion(mine.id[-12:]).id == mine.id
    with pytest.raises(NotFound, match="deletion"):
        deletions.deletion("nothing")


def test_no_value_of_a_key_is_in_the_database_or_its_audit_trail(engine: Engine, deletions: Deletions) -> None:
    begun = deletions.begin(DeletionRequest(PLANE, actor="ada", reason="request 318"))
    deletions.finish(begun, DeletionState.DONE, {"places": []})
    with engine.connect() as connection:
        for table in ("entity_deletions", "audit_events", "entity_hash_keys"):
            told = str(connection.execute(text(f"SELECT * FROM {table}")).all())  # a name of ours
            assert "14228" not in told
    events = [(each.action, each.actor) for each in AuditTrail(engine).audit(subject=f"entity/{begun.id}")]
    assert events == [("begin_deletion", "ada"), ("delete_entity", "ada")]


def test_first_deletions_at_once_agree_on_one_key_and_all_are_in_force(registry_url: str, deletions: Deletions) -> None:
    ready = threading.Barrier(4)

    def delete(number: int) -> None:
        engine = database.engine(registry_url)
        ready.wait()
        Deletions(engine).begin(DeletionRequest(ChosenEntities({"tail": f"N{number}"}), before=Micros(NOW)))
        engine.dispose()

    threads = [threading.Thread(target=delete, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert kept_out(deletions, tails("N0", "N1", "N2", "N3", "N4"), *[NOW] * 5) == [True] * 4 + [False]
