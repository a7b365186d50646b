"""kill -9 at every step of every change, on SQLite and PostgreSQL: what is kept is the state before or after it.

One process per database makes each change over and over in forks of itself. A fork dies at its n-th step (before each
statement, which is after the one before, before the commit, after it), n = 0, 1, … until one gets through; other forks
die after a time drawn at random. After each the process says what the registry holds.
"""

import json
import os
import subprocess
import sys
from typing import Any

from skewless.canonical_json import digest
from skewless.rollout.routes import Route

TIMEOUT_S = 240.0
RANDOM_DEATHS = int(os.environ.get("SKEWLESS_TEST_REGISTRY_DEATHS", "4"))
"""Of each change, beside one at each of its steps."""
CHANGES = ("register", "retire", "create", "promote", "rollback", "experiment", "canary")
DRIVER = '''
import itertools, json, os, random, signal, sys, time
from sqlalchemy import event
from sqlalchemy.orm import Session
from skewless.canonical_json import digest
from skewless.errors import NotFound
from skewless.registry.database import engine
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Arm, Experiment, ExperimentKind
from skewless.timestamps import Micros

url, random_deaths, CHANGES = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
OLD, NEW, OTHER = (digest(name) for name in ("old", "new", "other"))
ARMS = (Arm("old", OLD, 0.5), Arm("new", NEW, 0.5))
EXPERIMENT = Experiment("wording", ExperimentKind.AB, ARMS, 0.5, "late")
WHO = {"actor": "ann", "reason": "try"}


def record(own):
    return BundleRecord(own, "b", Micros(1), own, own, own, {})


def prepare(change, registry, name):
    """What a change starts from, under a name that no other try uses."""
    if change == "retire":
        registry.register_bundle(record(digest(name)), **WHO)
    if change not in {"register", "retire", "create"}:
        registry.create_endpoint(name, description="", bundle=OLD, **WHO)
    if change == "rollback":
        registry.set_live(name, NEW, **WHO)
    if change in {"experiment", "canary"}:
        start = lambda route: changes.start_canary(route, OTHER, 0.05)
        registry.change_route(name, start, action=RouteAction.START_CANARY, progress={"step": 0}, **WHO)


def make(change, registry, name):
    """The change."""
    if change == "register":
        registry.register_bundle(record(digest(name)), **WHO)
    elif change == "retire":
        registry.retire_bundles([digest(name)], **WHO)
    elif change == "create":
        registry.create_endpoint(name, description="", bundle=OLD, **WHO)
    elif change == "promote":
        registry.set_live(name, NEW, **WHO)
    elif change == "rollback":
        registry.rollback(name, **WHO)
    elif change == "experiment":
        start = lambda route: changes.start_experiment(route, EXPERIMENT)
        registry.change_route(name, start, action=RouteAction.START_EXPERIMENT, **WHO)
    else:
        grow = lambda route: changes.set_canary_share(route, 0.5)
        registry.change_route(name, grow, action=RouteAction.SET_CANARY_SHARE, progress={"step": 1}, **WHO)


def found(look_up, name):
    try:
        return [look_up(name).to_json()]
    except NotFound:
        return []


def state(name):
    """All that the registry holds about a name."""
    own = digest(name)
    endpoints = found(registry.endpoint, name)
    subjects = (f"bundle/{own}", f"endpoint/{name}")
    return {
        "bundles": found(registry.bundle, own),
        "endpoints": endpoints,
        "progress": registry.progress(name) if endpoints else None,
        "audit": [each.to_json() for subject in subjects for each in registry.audit(subject=subject)],
    }


def fork(act):
    """Run in a fork; the signal that ended it, 0 where it got through."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status <= 0, status
    return -status


def dying_at(step, change, name):
    """A change, killed at its step-th step."""
    steps = itertools.count()

    def die(*_arguments, **_named):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    for moment in ("before_cursor_execute", "commit"):
        event.listen(theirs, moment, die)
    event.listen(Session, "after_commit", die)
    make(change, Registry(theirs), name)


def dying_after(seconds, change, name):
    """A change, killed after a time, wherever it is then."""
    # The default of this signal is to end the process at once, without a word.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    make(change, Registry(theirs), name)
    signal.setitimer(signal.ITIMER_REAL, 0)


def attempt(dying, moment, change):
    """One try; whether it was killed, and how long it took."""
    name = f"{change}-{next(numbers)}"
    prepare(change, registry, name)
    before = state(name)
    started = time.monotonic()
    ended_by = fork(lambda: dying(moment, change, name))
    took_s = time.monotonic() - started
    told = {"change": change, "how": dying.__name__, "ended_by": ended_by, "before": before, "after": state(name)}
    print(json.dumps(told), flush=True)
    return bool(ended_by), took_s


numbers, drawn = itertools.count(), random.Random(7)
registry = Registry(engine(url))
for own in (OLD, NEW, OTHER):
    registry.register_bundle(record(own))
# What the forks work with: it knows every statement by now, and has no connection that two processes could share.
theirs = engine(url)
for change in CHANGES:
    prepare(change, Registry(theirs), f"{change}-warm-up")
    make(change, Registry(theirs), f"{change}-warm-up")
theirs.dispose()
for change in CHANGES:
    for step in itertools.count():
        killed, took_s = attempt(dying_at, step, change)
        if not killed:
            break
    for _ in range(random_deaths):
        attempt(dying_after, drawn.uniform(1e-4, took_s), change)
'''


def test_a_kill_at_any_step_leaves_the_state_before_or_after_the_change(registry_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, registry_url, str(RANDOM_DEATHS), *CHANGES],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tries = [json.loads(line) for line in done.stdout.splitlines()]
    for change in CHANGES:
        of_it = [each for each in tries if each["change"] == change]
        assert len(of_it) > RANDOM_DEATHS
        for each in of_it:
            made = _is_after(each["before"], each["after"])
            assert made or each["after"] == each["before"], each
            assert made or each["ended_by"], "who got through has made the change"
        _check_steps([each for each in of_it if each["how"] == "dying_at"])


def _check_steps(stepped: list[dict[str, Any]]) -> None:
    """Once a change is made it stays made: the last steps come after the commit, and all others before it."""
    assert len(stepped) > 5, "a change is several statements"
    assert [bool(each["ended_by"]) for each in stepped] == [True] * (len(stepped) - 1) + [False]
    outcomes = [_is_after(each["before"], each["after"]) for each in stepped]
    assert outcomes == sorted(outcomes)
    assert outcomes[0] is False
    assert outcomes[-2:] == [True, True]


def _is_after(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the change is there, whole: one event more, and what it says is what the rows say."""
    if after == before:
        return False
    *past, event = after["audit"]
    assert past == before["audit"]
    if event["subject"].startswith("bundle/"):
        (bundle,) = after["bundles"]
        assert event["subject"] == f"bundle/{bundle['digest']}"
        assert (event["action"] == "retire") == (bundle["retired_time"] is not None)
        return True
    (endpoint,) = after["endpoints"]
    route = Route.from_json({key: endpoint[key] for key in event["detail"]["after"]})
    assert route.to_json() == event["detail"]["after"]
    assert event["detail"]["before"] == (_route(before) if before["endpoints"] else None)
    assert route.version == (1 if not before["endpoints"] else _route(before)["version"] + 1)
    _check_change(event["action"], route, after["progress"])
    return True


def _check_change(action: str, route: Route, progress: Any) -> None:
    old, new = digest("old"), digest("new")
    if action == "promote":
        assert (route.live, route.previous) == (new, old)
    elif action == "rollback":
        assert (route.live, route.previous) == (old, None)
    elif action == "start_experiment":
        assert route.experiment is not None
        assert [arm.bundle for arm in route.experiment.arms] == [old, new]
        assert progress == {"step": 0}
    elif action == "set_canary_share":
        assert route.canary is not None
        assert (route.canary.share, progress) == (0.5, {"step": 1})
    else:
        assert (action, route.live) == ("create", old)


def _route(state: dict[str, Any]) -> Any:
    return state["audit"][-1]["detail"]["after"]
