"""The gateway's own copies, which the workers of one machine write side by side."""

import subprocess
import sys
from pathlib import Path

import pytest

from skewless_http.local_copy import LocalCopy

WRITERS = 3
SAVES = 40
_WRITE = """
import sys
from pathlib import Path
from skewless_http.local_copy import LocalCopy
copy = LocalCopy(Path(sys.argv[1]), what="routes")
for number in range(int(sys.argv[2])):
    copy.save({"writer": sys.argv[3], "same": [number] * 5_000, "again": [number] * 5_000})
"""


def test_a_copy_is_always_one_that_somebody_saved_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state" / "routes.json"
    copy = LocalCopy(path, what="routes")
    copy.save({"writer": "test", "same": [], "again": []})
    command = [sys.executable, "-c", _WRITE, str(path), str(SAVES)]
    writers = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(WRITERS)
    ]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        found = copy.load()
        assert isinstance(found, dict), caplog.text
        assert found["same"] == found["again"]
        seen.add(found["writer"])
    for writer in writers:
        _, said = writer.communicate()
        assert (writer.returncode, said) == (0, ""), "no save failed"
    assert len(seen) > 1
    assert [each.name for each in path.parent.iterdir()] == ["routes.json"], "nothing half-written is left"
