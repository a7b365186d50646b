"""docs/tutorial.md as it stands: its files written, its commands run in order, their output held against the page."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import pytest

from harness.command_forks import CommandForks
from harness.servers import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
FILES = dict(re.findall(r"^`(parcels/[\w/.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ANYTHING = "…"
TIMEOUT_S = 240
SOMETHING_TO_APPLY = 7
INGEST = "http://127.0.0.1:8104"


def told_commands() -> list[tuple[str, list[str]]]:
    """Each command of the page with the lines of output that it shows."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(CONSOLES).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


COMMANDS = told_commands()


def shows(lines: list[str], output: str) -> bool:
    """Whether an output has the lines of the page, in order; `…` stands for anything, also for any lines."""
    wanted = "\n".join(lines)
    pattern = ".*".join(re.escape(each) for each in wanted.split(ANYTHING))
    return re.search(pattern, output, re.DOTALL) is not None


@dataclass
class Reader:
    """Somebody who does what the page says, in a folder of their own."""

    forks: CommandForks
    folder: Path
    environment: dict[str, str]
    ran: list[str] = field(default_factory=list)

    def write_files(self) -> None:
        for name, text in FILES.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def follow(self, command: str, lines: list[str]) -> None:
        if command.startswith("export "):
            self._export(command)
        elif command.startswith(("skewless predict", "skewless ingest")):
            # Until the gateway has loaded what was routed a moment ago, or the row that came has gone its way.
            wait_until(
                lambda: shows(lines, self._run(command).stdout), f"{command} shows\n{lines}", timeout_s=TIMEOUT_S
            )
        else:
            done = self._run(command)
            allowed = {0, SOMETHING_TO_APPLY} if command == "skewless plan" else {0}
            output = done.stdout + done.stderr  # what a terminal shows
            assert done.returncode in allowed, f"{command}\n{output}"
            assert shows(lines, output), f"{command}\nshows\n{lines}\nprints\n{output}"
            self._learn(command, output)
        self.ran.append(command)

    def _export(self, command: str) -> None:
        for each in command.split()[1:]:
            name, value = each.split("=", 1)
            self.environment[name] = Template(value).substitute(PWD=str(self.folder))

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        if command.startswith("skewless "):
            words = [Template(word).safe_substitute(self.environment) for word in shlex.split(command)]
            return self.forks.run(*words[1:], environment=self.environment, folder=self.folder, timeout_s=TIMEOUT_S)
        if command.startswith("curl "):
            state = json.loads((self.folder / "home" / "stack.json").read_text())
            command = command.replace(INGEST, state["addresses"]["ingest_url"])
        command = re.sub(r"^python\b", shlex.quote(sys.executable), command)
        return subprocess.run(
            ["/bin/sh", "-c", command],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def _learn(self, command: str, output: str) -> None:
        if command.startswith("skewless train"):
            (self.environment["BUNDLE"],) = re.findall(r"^bundle ([0-9a-f]{64})$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, command_forks: CommandForks) -> Iterator[Reader]:
    """Somebody who has followed the page up to its last command, which stops the stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    ports = ("GATEWAY", "GATEWAY_ADMIN", "SHIPPER", "INGEST", "INGEST_ADMIN")
    free = {f"SKEWLESS_STACK_{each}_PORT": "0" for each in ports}
    folder = tmp_path_factory.mktemp("tutorial")
    found = Reader(command_forks, folder, {**kept, **free})
    found.write_files()
    try:
        for command, lines in COMMANDS[:-1]:
            found.follow(command, lines)
        yield found
    finally:
        found.follow(*COMMANDS[-1])


def test_the_page_goes_from_a_table_to_a_parity_check() -> None:
    named = [command for command, _ in COMMANDS]
    steps = ("skewless plan", "skewless apply", "skewless quality suggest", "skewless materialize", "skewless train",
             "skewless endpoint create", "curl", "skewless parity check", "skewless down")  # fmt: skip
    places = [next(at for at, command in enumerate(named) if command.startswith(step)) for step in steps]
    assert places == sorted(places)
    assert len(FILES) == 6


def test_every_command_of_the_page_does_what_it_shows(reader: Reader) -> None:
    assert reader.ran == [command for command, _ in COMMANDS[:-1]]
