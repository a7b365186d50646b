"""Which row of a chunk an error is about, and the same error told by the row's place in the whole body."""

import re

from skewless.errors import SkewlessError

_ROW = re.compile(r"\$\.instances\[(\d+)\]")


def row_of(error: SkewlessError) -> int | None:
    """The row of its chunk that an error is about; None where it is about no single row.

    >>> from skewless.errors import InvalidRequest
    >>> row_of(InvalidRequest("wrong", path="$.instances[7].origin")), row_of(SkewlessError("wrong"))
    (7, None)
    """
    found = _ROW.match(getattr(error, "path", ""))
    return int(found.group(1)) if found else None


def placed(error: SkewlessError, first_row: int) -> SkewlessError:
    """The error as it is told about rows of which the first is row `first_row` of the body.

    >>> from skewless.errors import InvalidRequest
    >>> told = placed(InvalidRequest("$.instances[7] is null", path="$.instances[7]"), 256)
    >>> told.message, told.path
    ('$.instances[263] is null', '$.instances[263]')
    """
    if not first_row or row_of(error) is None:
        return error

    def shifted(text: str) -> str:
        return _ROW.sub(lambda found: f"$.instances[{int(found.group(1)) + first_row}]", text, count=1)

    # Not `copy`, which would call a constructor whose arguments are not kept.
    moved = type(error).__new__(type(error), *error.args)
    moved.__dict__.update(error.__dict__)
    moved.message = shifted(error.message)
    moved.path = shifted(error.path)  # type: ignore[attr-defined]  # whatever is about a row has a path
    return moved
