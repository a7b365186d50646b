"""The gateway's log: one line per record on standard error, as JSON or as text.

A record is formatted where it is made and written by a thread, because standard error may be a pipe whose reader is
slow: a request must not wait for it. Where too many lines wait, further ones are dropped and counted.

What a record tells beside its message is in its attribute `told`: request_id, trace_id, endpoint and the like.
"""

import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from skewless.limits import LOG_CLOSE_S, LOG_LINES_WAITING_MAX

_DROPPED = "skewless_http.logs"


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, worker: int | None = None) -> None:
        """`worker` is the number of the worker that writes; None in a parent, or where there is only one process."""
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
            **told_by(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """One line per record for people; what callers may have sent cannot begin a line of its own."""

    def __init__(self, worker: int | None = None) -> None:
        """As `JsonLines`."""
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = "".join(f" {name}={value}" for name, value in (self._worker | dict(told_by(record))).items())
        line = f"{time} {record.levelname:<7} {record.name}: {_on_one_line(record.getMessage() + told)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class WaitingLines(logging.Handler):
    """Writes lines by a thread. What is written while the stream blocks waits, up to LOG_LINES_WAITING_MAX lines."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._dropped_told = 0
        self.dropped = 0
        """Lines that were one too many."""
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`. Never blocks on the stream."""
        if len(self._lines) >= LOG_LINES_WAITING_MAX:
            self.dropped += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # logging's boundary: a record that cannot be formatted ends no request
            self.handleError(record)
            return
        self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """Write what waits, for LOG_CLOSE_S at most. Closing twice is allowed."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(LOG_CLOSE_S)
        super().close()

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._lines:
                self._write(self._lines.popleft())
            if self.dropped != self._dropped_told:
                self._tell_dropped()
            if self._is_closing and not self._lines:
                return

    def _tell_dropped(self) -> None:
        count, self._dropped_told = self.dropped - self._dropped_told, self.dropped
        text = f"{count} lines of the log were dropped: they came faster than they could be written"
        self._write(self.format(logging.LogRecord(_DROPPED, logging.WARNING, "", 0, text, None, None)))

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += 1  # nobody is there to be told; the stream is gone
            self._dropped_told = self.dropped


def told_by(record: logging.LogRecord) -> Mapping[str, object]:
    """What a record says beside its message; nothing that is empty."""
    told: Mapping[str, object] = getattr(record, "told", {})
    return {name: value for name, value in told.items() if value not in ("", None)}


def configure_logging(form: str = "json", *, worker: int | None = None) -> WaitingLines:
    """Send every logger of the process, and Python's warnings, to standard error, as `json` or `text`.

    May be called again once the settings are known; the handler before is written to its end.
    """
    handler = WaitingLines(sys.stderr)
    handler.setFormatter(TextLines(worker) if form == "text" else JsonLines(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # It tells of its own steps, and we of ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # Says in several lines, each time, what we say once: that the collector is away.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return handler


def _on_one_line(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
