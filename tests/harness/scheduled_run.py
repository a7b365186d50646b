"""A program that schedulers start in place of a materialization.

Of each view FOLDER/VIEW.runs has a line per run that began. FOLDER/VIEW.plan says, a word per run, how runs end: a
number is an exit code, `hold` waits until FOLDER/VIEW.go is there. After its last word runs end well.
"""

import sys
import time
from pathlib import Path

_POLL_S = 0.01
_HOLD_S_MAX = 300.0


def command(folder: Path) -> tuple[str, ...]:
    """What starts it; a view and options follow."""
    return (sys.executable, "-I", "-S", __file__, str(folder))


def runs(folder: Path, name: str) -> int:
    """How many runs of a view began."""
    file = folder / f"{name}.runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def plan(folder: Path, name: str, *words: str) -> None:
    """Say how the runs of a view end, one after the other."""
    (folder / f"{name}.plan").write_text(" ".join(words))


def let_go(folder: Path, name: str) -> None:
    """Let runs of a view end that are held."""
    (folder / f"{name}.go").touch()


def _run(folder: Path, name: str, options: list[str]) -> int:
    assert options == ["--scheduled", "--json"], options
    with (folder / f"{name}.runs").open("a") as began:
        began.write("began\n")
    number = runs(folder, name)
    planned = folder / f"{name}.plan"
    words = planned.read_text().split() if planned.exists() else []
    word = words[number - 1] if number <= len(words) else "0"
    if word == "hold":
        deadline_s = time.monotonic() + _HOLD_S_MAX
        while not (folder / f"{name}.go").exists():
            assert time.monotonic() < deadline_s, "nobody let it go on"
            time.sleep(_POLL_S)
        return 0
    if word != "0":
        sys.stderr.write(f"error: {name} does not work\n")
    return int(word)


if __name__ == "__main__":
    sys.exit(_run(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
