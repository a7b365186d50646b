"""A request's deadline: where it is said, which of several counts, and what it keeps from being started."""

import pytest

from skewless.errors import DeadlineExceeded, InvalidRequest
from skewless.limits import DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX
from skewless.serving.deadline import Deadline
from skewless.serving.recent_low import SPAN_NS, RecentLow, StageNeeds
from skewless.serving.request_timeout import effective_deadline_ms, read_timeout_ms

MS = 1_000_000


def test_the_smallest_deadline_that_is_said_counts() -> None:
    assert effective_deadline_ms(read_timeout_ms(b"300", b"200"), 250) == 200
    assert effective_deadline_ms(read_timeout_ms(b"300"), None) == 300


def test_a_deadline_is_never_longer_than_the_server_allows() -> None:
    assert effective_deadline_ms(read_timeout_ms(b"60000"), None) == DEADLINE_MS_MAX
    assert effective_deadline_ms(None, None) == DEADLINE_MS_DEFAULT


@pytest.mark.parametrize("value", [b"", b"0", b"-5", b"1.5", b"1e3", b" 20", b"0x10", b"12345678901", "٣".encode()])
def test_a_header_of_ours_that_is_no_whole_number_of_milliseconds_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="X-Request-Timeout-Ms") as refused:
        read_timeout_ms(value)
    assert refused.value.code == "invalid_option"


@pytest.mark.parametrize("value", [b"", b"0", b"soon", b"1.5"])
def test_what_a_proxy_says_is_passed_over_where_it_means_nothing(value: bytes) -> None:
    assert read_timeout_ms(None, value) is None
    assert read_timeout_ms(b"70", value) == 70


def test_a_stage_that_needs_more_than_is_left_is_not_started() -> None:
    now_ns = 0
    deadline = Deadline(lambda: now_ns, started_ns=0, deadline_ms=50)
    assert deadline.allowance_s("model", at_most_s=1.0, needs_s=0.04) == pytest.approx(0.05)
    now_ns = 20 * MS
    with pytest.raises(DeadlineExceeded, match=r"leaves 30\.0 ms, and it takes 40\.0 ms at least"):
        deadline.allowance_s("model", at_most_s=1.0, needs_s=0.04)
    assert deadline.allowance_s("model", at_most_s=0.01) == pytest.approx(0.01)
    now_ns = 50 * MS
    with pytest.raises(DeadlineExceeded, match="ran out before it was called"):
        deadline.allowance_s("model", at_most_s=1.0)


def test_reading_must_leave_time_for_the_model() -> None:
    needs = StageNeeds.unknown()
    assert needs.before_read_s(0) == 0.0
    needs.read.learn(2 * MS, now_ns=1)
    needs.call.learn(5 * MS, now_ns=2)
    needs.call.learn(9 * MS, now_ns=3)
    assert needs.before_read_s(4) == pytest.approx(0.007)
    assert needs.before_call_s(4) == pytest.approx(0.005)


def test_what_was_needed_once_is_forgotten_when_nothing_confirms_it() -> None:
    low = RecentLow()
    low.learn(5 * MS, now_ns=0)
    low.learn(8 * MS, now_ns=SPAN_NS)
    assert low.at(SPAN_NS + 1) == 5 * MS
    low.learn(8 * MS, now_ns=2 * SPAN_NS)
    assert low.at(2 * SPAN_NS + 1) == 8 * MS, "the faster days are over"
    assert low.at(5 * SPAN_NS) == 0, "after a silence everybody gets a chance"
