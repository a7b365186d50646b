"""docs/model-life.md as it stands: every command of it, in order, on a small repository and a real embedded stack."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pytest

from harness.command_forks import CommandForks
from harness.feature_repository import small_repository
from harness.servers import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "model-life.md"
COMMANDS = re.findall(r"^\$ (skewless .*)$", PAGE.read_text(), re.MULTILINE)
INSTANCE = {"station": "north", "line": 1, "cars": 3}
COMMAND_TIMEOUT_S = 240
MODELS = '''\
"""The models of the page, under its names."""

from dataclasses import replace

from life_repo.models.delay import delay
from skewless.training.definition import BoostedTrees

first = replace(delay, name="flight-delay")
second = replace(delay, name="flight-delay-lightgbm", learner=BoostedTrees(max_iter=8, min_samples_leaf=5))
'''


@dataclass
class Life:
    """A home in which the page's commands run one after the other."""

    forks: CommandForks
    environment: dict[str, str]
    output: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> str:
        done = self.tried(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def tried(self, command: str) -> subprocess.CompletedProcess[str]:
        words = [Template(word).substitute(self.environment) for word in shlex.split(command)]
        home = Path(self.environment["SKEWLESS_HOME"])
        return self.forks.run(*words[1:], environment=self.environment, folder=home, timeout_s=COMMAND_TIMEOUT_S)

    def predict(self, command: str) -> str:
        """As `run`, once the gateway has loaded what was routed a moment ago."""

        def is_answered() -> bool:
            done = self.tried(command)
            if done.returncode and "being loaded" not in done.stderr:
                raise AssertionError(f"{command}\n{done.stderr}")
            self.output[command] = done.stdout
            return done.returncode == 0

        wait_until(is_answered, f"{command} is answered", timeout_s=120)
        return self.output[command]

    def know_bundles(self) -> None:
        """Have FIRST and SECOND hold the digests of the two models' bundles, once they are there."""
        for variable, name in (("FIRST", "flight-delay"), ("SECOND", "flight-delay-lightgbm")):
            listed = json.loads(self.run(f"skewless bundle list --name {name} --json"))
            if listed:
                self.environment[variable] = listed[0]["digest"]

    def json(self, command: str) -> Any:
        return json.loads(self.run(f"{command} --json"))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, command_forks: CommandForks) -> Iterator[Life]:
    """Every command of the page has run, and ended well."""
    folder = tmp_path_factory.mktemp("life")
    home = folder / "home"
    home.mkdir()
    with small_repository(folder, "life_repo", project="life") as small:
        (small.folder / "models" / "named.py").write_text(MODELS)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
        lived = Life(
            command_forks,
            {
                **kept,
                "SKEWLESS_HOME": str(home),
                "SKEWLESS_REPO": str(small.folder),
                "SKEWLESS_DATA": str(small.data),
                "SKEWLESS_STACK_GATEWAY_PORT": "0",
                "INSTANCE": json.dumps(INSTANCE),
            },
        )
        try:
            for command in COMMANDS:
                is_asked = command.startswith("skewless predict")
                lived.output[command] = lived.predict(command) if is_asked else lived.run(command)
                if command.startswith("skewless train"):
                    lived.know_bundles()
            yield lived
        finally:
            lived.run("skewless down")


def test_the_page_goes_from_training_to_retirement() -> None:
    words = [command.split()[1:3] for command in COMMANDS]
    for step in (["train", "flight-delay"], ["rollout", "start"], ["rollout", "rollback"], ["artifact", "gc"]):
        assert step in words
    assert len(COMMANDS) > 20


def test_every_command_of_the_page_does_what_it_says(life: Life) -> None:
    assert set(life.output) == set(COMMANDS)
    shown = life.json("skewless endpoint show flight-delay")
    assert shown["live"] == life.environment["SECOND"]
    assert [each["action"] for each in shown["history"]] == [
        "create",
        "start_shadow",
        "abort",
        "start_canary",
        "promote",
        "rollback",
        "start_experiment",
        "promote",
    ]
    assert all(each["reason"] for each in shown["history"])


def test_bundles_that_a_route_or_a_rollback_names_outlive_the_garbage_collection(life: Life) -> None:
    kept = {each["digest"] for each in life.json("skewless bundle list")}
    assert {life.environment["FIRST"], life.environment["SECOND"]} <= kept
