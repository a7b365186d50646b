"""Arguments that several commands take, read in one way."""

import getpass
import os

from skewless.errors import InvalidRequest
from skewless.timestamps import Micros, parse_timestamp


def moment(text: str, *, option: str) -> Micros:
    """The moment (µs) that an option names. Raises InvalidRequest for a text that names none."""
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise InvalidRequest(
            f"`{text}` is no time: {error}",
            path=option,
            allowed="an RFC 3339 time with its zone, such as 2013-05-01T00:00:00Z, or a date",
        ) from error


def actor() -> str:
    """Who runs this command, for the audit trail."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user id that has no name.
        return f"uid {os.getuid()}"
