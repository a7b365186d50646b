"""W3C Trace Context as callers send it, proper and not."""

import pytest

from skewless.limits import TRACESTATE_BYTES_MAX
from skewless.serving.trace_context import TraceContext, read_context, written

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_a_proper_header_is_read_with_its_flag_and_state() -> None:
    found = read_context(f"00-{TRACE}-{SPAN}-01".encode(), b"vendor=1,other=2")
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), True, b"vendor=1,other=2")
    unsampled = read_context(f"00-{TRACE}-{SPAN}-02".encode())
    assert unsampled is not None
    assert not unsampled.is_sampled


def test_what_is_written_is_read_again() -> None:
    found = read_context(written(int(TRACE, 16), int(SPAN, 16)))
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), True)


def test_a_later_version_may_say_more_and_this_one_may_not() -> None:
    assert read_context(f"01-{TRACE}-{SPAN}-01-more".encode()) is not None
    assert read_context(f"00-{TRACE}-{SPAN}-01-more".encode()) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_cannot_be_read_is_no_parent(header: str) -> None:
    assert read_context(header.encode()) is None


@pytest.mark.parametrize("state", [b"a=" + b"x" * TRACESTATE_BYTES_MAX, b"a=\x00", b"a=\xff", b"a=1\r\nhost: else"])
def test_a_state_that_is_too_long_or_no_text_is_dropped_and_the_parent_kept(state: bytes) -> None:
    found = read_context(f"00-{TRACE}-{SPAN}-01".encode(), state)
    assert found is not None
    assert found.state == b""
