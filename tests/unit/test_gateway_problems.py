"""Every error class has a status, and problem documents say what a caller can use."""

import inspect
import json
from typing import Any

import pytest

from skewless import errors
from skewless.errors import DeadlineExceeded, InvalidDefinition, InvalidRequest, NotFound, SkewlessError, Unavailable
from skewless_http.http_message import Reply
from skewless_http.problems import STATUS_OF_CLASS, UNSUPPORTED_MEDIA_TYPE, problem_of, status_of


def document(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply.body, bytes)
    body: dict[str, Any] = json.loads(reply.body)
    return body


CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SkewlessError)]


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_class_has_a_status(error_class: type[SkewlessError]) -> None:
    assert error_class in STATUS_OF_CLASS


def test_the_table_names_no_class_that_is_gone() -> None:
    assert set(STATUS_OF_CLASS) == set(CLASSES)


def test_a_code_with_a_status_of_its_own_wins_over_its_class() -> None:
    error = InvalidRequest("x", path="$", code=UNSUPPORTED_MEDIA_TYPE)
    assert status_of(error) == 415
    assert status_of(InvalidRequest("x", path="$")) == 400


def test_an_away_part_says_when_to_come_back_in_whole_seconds() -> None:
    response = problem_of(Unavailable("store", "gone", retry_after_s=1.2), request_id="r")
    assert (response.status, response.headers) == (503, ((b"retry-after", b"2"),))
    assert problem_of(DeadlineExceeded("store", "slow"), request_id="r").status == 504


def test_what_exists_is_listed_for_what_does_not() -> None:
    body = document(problem_of(NotFound("endpoint", "a", known=("b", "c")), request_id="r"))
    assert body["allowed"] == "b, c"
    assert body["request_id"] == "r"


def test_an_internal_error_keeps_its_message_to_itself() -> None:
    response = problem_of(InvalidDefinition("the secret"), request_id="r")
    assert response.status == 500
    assert "secret" not in str(document(response))
