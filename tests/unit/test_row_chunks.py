"""NDJSON cut into chunks of rows, and errors told by a row's place in the body."""

import json

import pytest

from harness.bundles import contract, instance
from skewless.errors import InvalidRequest, LimitExceeded, Rejected, SkewlessError, Unavailable
from skewless.limits import BATCH_CHUNK_BYTES_MAX, BATCH_CHUNK_ROWS, BATCH_LINE_BYTES_MAX
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.instances import InstanceValidator
from skewless.serving.row_chunks import JsonChunks, JsonRows
from skewless.serving.row_faults import placed, row_of

DECODER = RequestDecoder.compile(InstanceValidator.compile(contract()))


def line(**changes: object) -> bytes:
    return json.dumps(instance(**changes), ensure_ascii=False).encode()


def cut(body: bytes, size: int) -> list[JsonRows]:
    chunks = JsonChunks()
    found = [each for start in range(0, len(body), size) for each in chunks.feed(body[start : start + size])]
    return found + chunks.finish()


def parties(chunks: list[JsonRows]) -> list[int]:
    return [value for each in chunks for value in each.columns(DECODER)["party"].values.tolist()]


@pytest.mark.parametrize("size", [1, 7, 100, 4_096, 1 << 20])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n", b"\n \t\r\n"])
def test_the_rows_are_the_same_in_whatever_pieces_the_body_arrives(size: int, ending: bytes) -> None:
    rows = BATCH_CHUNK_ROWS + 3
    body = ending.join(line(party=number, origin="Zürich") for number in range(rows))
    for whole in (body, body + ending):
        chunks = cut(whole, size)
        assert [len(each) for each in chunks] == [BATCH_CHUNK_ROWS, 3]
        assert parties(chunks) == list(range(rows))


def test_a_body_of_nothing_has_no_chunk() -> None:
    for body in (b"", b"\n", b" \r\n\n\t"):
        assert cut(body, 1) == []


def test_long_lines_make_smaller_chunks() -> None:
    long = line(origin="x" * 200_000)
    chunks = cut(b"\n".join([long] * 50), 1 << 16)
    assert sum(len(each) for each in chunks) == 50
    assert max(len(each) for each in chunks) * 200_000 < BATCH_CHUNK_BYTES_MAX + BATCH_LINE_BYTES_MAX


def test_a_line_without_an_end_is_refused_before_it_is_held_and_named_by_its_row() -> None:
    chunks = JsonChunks()
    chunks.feed(line() + b"\n" + line() + b"\n")
    for _ in range(BATCH_LINE_BYTES_MAX // 1_024):
        chunks.feed(b"x" * 1_024)
    with pytest.raises(LimitExceeded) as refused:
        chunks.feed(b"x")
    assert refused.value.path == "$.instances[2]"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"{not json}", "malformed_json"),
        (b'{"a": 1} {"b": 2}', "malformed_json"),
        (b'"\xff"', "malformed_json"),
        (b"[1, 2]", "invalid_request"),
        (b"7", "invalid_request"),
        (b"{}", "missing_field"),
    ],
)
def test_a_wrong_line_is_refused_by_its_row(wrong: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        JsonRows([line(), line(), wrong, line()]).columns(DECODER)
    assert row_of(refused.value) == 2
    assert refused.value.code == code
    assert "the body" not in refused.value.message


def test_lines_do_not_add_up_to_rows_that_none_of_them_is() -> None:
    first, second = line()[:20], line()[20:]
    with pytest.raises(InvalidRequest) as refused:
        JsonRows([first, second]).columns(DECODER)
    assert row_of(refused.value) == 0


def test_a_part_is_rows_of_its_own() -> None:
    rows = JsonRows([line(party=number) for number in range(10)])
    part = rows.part(4, 7)
    assert len(part) == 3
    assert part.columns(DECODER)["party"].values.tolist() == [4, 5, 6]


def test_an_error_is_told_by_the_rows_place_in_the_body_with_everything_else_as_it_was() -> None:
    error = InvalidRequest(
        "$.instances[7] has no `origin`",
        path="$.instances[7].origin",
        allowed="text",
        hint="send it",
        code="missing_field",
    )
    told = placed(error, 1_024)
    assert isinstance(told, InvalidRequest)
    assert (told.message, told.path) == ("$.instances[1031] has no `origin`", "$.instances[1031].origin")
    assert (told.allowed, told.hint, told.code) == ("text", "send it", "missing_field")
    assert (error.path, str(told)) == ("$.instances[7].origin", "$.instances[1031] has no `origin`\n\nhint: send it")
    rejected = placed(Rejected("no weather", path="$.instances[0].origin"), 256)
    assert isinstance(rejected, Rejected)
    assert rejected.path == "$.instances[256].origin"


def test_an_error_about_no_row_is_told_as_it_is() -> None:
    for error in (SkewlessError("ours"), Unavailable("store", "away"), InvalidRequest("no", path="$.columns.x")):
        assert row_of(error) is None
        assert placed(error, 256) is error
