"""The artifact store on S3-compatible storage, against a real server and its faults."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.artifacts import SMALL, content, large_file, write_artifact
from harness.proxies import proxied
from harness.s3 import SECRET_KEY, S3Server, gated, running_s3, use_credentials
from harness.servers import wait_until
from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.s3_artifact_store import PIECE_BYTES, S3ArtifactStore
from skewless.adapters.s3_objects import Patience, S3Objects
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, Conflict, InvalidSettings, NotFound, SkewlessError, Unavailable
from skewless.timestamps import SECOND_US

PATIENT = Patience()
HASTY = Patience(connect_s=0.5, request_s=1.0, retries_max=1, retry_s=1.0)
HASTY_S_MAX = 30.0
"""An operation of a hasty store begins few requests before one fails; the rest is for a busy machine."""
MEMORY_KIB_MAX = 90 * 1024
"""Four requests at a time of 4 MiB, which the client holds up to three times, and what the client itself takes."""
LARGE_PATH = "model/weights.bin"
PIECES = 4
TESTS = Path(__file__).parents[1]
Open = Callable[..., S3ArtifactStore]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


def _address(url: str) -> BucketAddress:
    address = parse_artifacts_url(url)
    assert isinstance(address, BucketAddress)
    return address


def _store(url: str, cache: Path, *, patience: Patience = PATIENT) -> S3ArtifactStore:
    return S3ArtifactStore(S3Objects(_address(url), patience), FolderArtifactStore(cache))


def _bundle(folder: Path, *, name: str = "large") -> Digest:
    files = {**SMALL, LARGE_PATH: large_file((PIECES - 1) * PIECE_BYTES + 5)}
    return write_artifact(folder, files, name=name)


def _written(server: S3Server, prefix: str) -> dict[str, int]:
    """When each object under a prefix was written, in ns."""
    root = server.bucket / prefix
    return {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def _now() -> int:
    return time.time_ns() // 1_000


def _operations(store: S3ArtifactStore, built: Path, made: Digest) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: store.put(built, made),
        "open": lambda: store.open(made),
        "verify": lambda: store.verify(made),
        "digests": store.digests,
        "inventory": store.inventory,
        "delete": lambda: store.delete(made),
        "discard": lambda: store.discard(made, unless_put_after=_now()),
    }


OPERATIONS = ("put", "open", "verify", "digests", "inventory", "delete", "discard")
each_operation = pytest.mark.parametrize("operation", OPERATIONS)


def _all_text(error: BaseException) -> str:
    """Everything that a log or a terminal would show of an error."""
    hint = error.hint if isinstance(error, SkewlessError) else ""
    return "".join(traceback.format_exception(error)) + hint


# --- faults of the server: a typed error in bounded time, that shows no secret ---


@each_operation
def test_a_server_that_says_nothing_is_unavailable_in_time(s3: S3Server, tmp_path: Path, operation: str) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name), tmp_path / "cache", patience=HASTY)
    begun_s = time.monotonic()
    with s3.paused(), pytest.raises(Unavailable, match="did not answer in time") as refused:
        _operations(store, tmp_path / "built", made)[operation]()
    assert time.monotonic() - begun_s < HASTY_S_MAX
    assert SECRET_KEY not in _all_text(refused.value)


@each_operation
def test_a_server_that_is_away_is_unavailable(s3: S3Server, tmp_path: Path, operation: str) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name, port=1), tmp_path / "cache", patience=HASTY)
    with pytest.raises(Unavailable, match="cannot be reached") as refused:
        _operations(store, tmp_path / "built", made)[operation]()
    assert "SKEWLESS_ARTIFACTS" in refused.value.hint


@pytest.mark.parametrize("status", [500, 503])
@each_operation
def test_a_server_that_fails_is_asked_again_and_then_unavailable(
    s3: S3Server, tmp_path: Path, operation: str, status: int
) -> None:
    made = write_artifact(tmp_path / "built")
    with gated(s3) as gate:
        gate.answer = lambda _method, _path: status
        store = _store(s3.url(tmp_path.name, port=gate.port), tmp_path / "cache", patience=HASTY)
        with pytest.raises(Unavailable, match=f"it answered {status}"):
            _operations(store, tmp_path / "built", made)[operation]()
        assert len(gate.requests) == 1 + HASTY.retries_max


def test_a_server_that_fails_now_and_then_is_used_all_the_same(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    with gated(s3) as gate:
        gate.answer = lambda _method, _path: 503 if len(gate.requests) % 3 == 1 else None
        store = _store(s3.url(tmp_path.name, port=gate.port), tmp_path / "cache")
        store.put(tmp_path / "built", made)
        assert content(store.open(made)) == content(tmp_path / "built")


def test_connections_that_are_cut_within_an_answer_are_made_anew(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    _store(s3.url(tmp_path.name), tmp_path / "first").put(tmp_path / "built", made)
    with proxied(s3.port) as proxy:
        budgets = iter([100_000, 200_000])
        proxy.budget = lambda: next(budgets, None)
        store = _store(s3.url(tmp_path.name, port=proxy.port), tmp_path / "cache")
        assert content(store.open(made)) == content(tmp_path / "built")
        assert proxy.cuts >= 1


def test_a_server_that_sends_too_slowly_is_unavailable_in_time(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    _store(s3.url(tmp_path.name), tmp_path / "first").put(tmp_path / "built", made)
    with proxied(s3.port) as proxy:
        proxy.delay_s = 0.05  # for each 4 KiB of an answer, so that something comes all the time
        store = _store(s3.url(tmp_path.name, port=proxy.port), tmp_path / "cache", patience=HASTY)
        begun_s = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time"):
            store.open(made)
        assert time.monotonic() - begun_s < 2 * HASTY_S_MAX
    assert list((tmp_path / "cache").iterdir()) == [], "what was fetched in part is gone"


@each_operation
def test_wrong_credentials_are_refused_with_what_to_set(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    use_credentials(monkeypatch, secret_key=SECRET_KEY[::-1])
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name), tmp_path / "cache")
    with pytest.raises(Unavailable, match="credentials are wrong") as refused:
        _operations(store, tmp_path / "built", made)[operation]()
    assert "AWS_SECRET_ACCESS_KEY" in refused.value.hint
    assert SECRET_KEY[::-1] not in _all_text(refused.value)


@each_operation
def test_a_missing_bucket_is_named_as_a_wrong_setting(s3: S3Server, tmp_path: Path, operation: str) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name, bucket="nowhere"), tmp_path / "cache")
    with pytest.raises(InvalidSettings, match="no bucket `nowhere`"):
        _operations(store, tmp_path / "built", made)[operation]()


# --- interrupted puts ---


def test_a_put_goes_on_where_a_killed_server_stopped_it(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    with running_s3(tmp_path / "own") as server, gated(server) as gate:
        pieces_sent = 0

        def kill_at_the_third_piece(method: str, path: str) -> int | None:
            nonlocal pieces_sent
            pieces_sent += method == "PUT" and LARGE_PATH in path
            if pieces_sent == 3:
                server.process.stop()
            return None if pieces_sent < 3 else 500

        gate.answer = kill_at_the_third_piece
        with pytest.raises(Unavailable):
            _store(server.url("p", port=gate.port), tmp_path / "cache", patience=HASTY).put(tmp_path / "built", made)
        port = server.port
    before = _written(server, "p")
    assert any(LARGE_PATH in key for key in before)
    with running_s3(tmp_path / "own", port=port) as server:
        store = _store(server.url("p"), tmp_path / "cache")
        assert store.digests() == ()
        with pytest.raises(NotFound):
            store.open(made)
        assert [leftover.name for leftover in store.inventory().leftovers] == [made]
        store.put(tmp_path / "built", made)
        after = _written(server, "p")
        assert {key: after[key] for key in before if "claims" not in key} == {
            key: written for key, written in before.items() if "claims" not in key
        }, "nothing that was there is sent again"
        assert content(store.open(made)) == content(tmp_path / "built")
        assert store.inventory().leftovers == ()


def test_a_put_killed_with_the_ninth_signal_leaves_nothing_visible_and_the_next_goes_on(
    s3: S3Server, tmp_path: Path
) -> None:
    made = _bundle(tmp_path / "built")
    with gated(s3) as gate:
        # The third piece is never answered, so that the kill comes in the middle.
        released = threading.Event()
        gate.answer = lambda _method, path: released.wait(60) and None if "00002-of" in path else None
        url = s3.url(tmp_path.name, port=gate.port)
        code = (
            "import sys; from pathlib import Path; from skewless.adapters.artifact_opening import open_artifact_store;"
            "open_artifact_store(sys.argv[1], cache=Path(sys.argv[2])).put(Path(sys.argv[3]), sys.argv[4])"
        )
        command = [sys.executable, "-c", code, url, str(tmp_path / "cache"), str(tmp_path / "built"), made]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: any("00002-of" in path for _, path in gate.requests), "the put is under way")
            finally:
                process.send_signal(signal.SIGKILL)
        released.set()
        assert process.returncode == -signal.SIGKILL
    store = _store(s3.url(tmp_path.name), tmp_path / "cache")
    assert store.digests() == ()
    before = _written(s3, tmp_path.name)
    store.put(tmp_path / "built", made)
    after = _written(s3, tmp_path.name)
    kept = [key for key in before if "0000" in key]
    assert kept
    assert [after[key] for key in kept] == [before[key] for key in kept]
    assert content(store.open(made)) == content(tmp_path / "built")


def test_nothing_is_sent_again_for_a_bundle_that_is_there(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    with gated(s3) as gate:
        store = _store(s3.url(tmp_path.name, port=gate.port), tmp_path / "cache")
        store.put(tmp_path / "built", made)
        first = gate.count("PUT")
        store.put(tmp_path / "built", made)
        assert gate.count("PUT") == first + 1, "only the claim is written anew"
        assert gate.count("GET") < 10, "and nothing is read back"


def test_where_etags_are_no_md5_content_is_compared_by_reading_it(s3: S3Server, tmp_path: Path) -> None:
    made = _bundle(tmp_path / "built")
    with gated(s3) as gate:
        gate.etags = False
        store = _store(s3.url(tmp_path.name, port=gate.port), tmp_path / "cache")
        store.put(tmp_path / "built", made)
        sent, read = gate.count("PUT"), gate.count("GET")
        store.put(tmp_path / "built", made)
        assert gate.count("PUT") == sent + 1
        assert gate.count("GET") > read + PIECES


def test_an_object_of_another_size_is_refused_before_it_is_read(s3: S3Server, tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name), tmp_path / "cache")
    store.put(tmp_path / "built", made)
    S3Objects(_address(s3.url(tmp_path.name))).put(f"{made}/contract.json", bytes(PIECE_BYTES))
    with pytest.raises(
        BundleRefused, match=rf"`contract\.json` is torn: .* has {PIECE_BYTES:,} bytes, 12 are expected"
    ):
        store.open(made)


# --- the cache of opened bundles ---


def test_a_bundle_that_was_opened_is_opened_again_while_the_server_is_away(s3: S3Server, tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built")
    _store(s3.url(tmp_path.name), tmp_path / "cache").put(tmp_path / "built", made)
    _store(s3.url(tmp_path.name), tmp_path / "cache").open(made)
    away = _store(s3.url(tmp_path.name, port=1), tmp_path / "cache", patience=HASTY)
    assert content(away.open(made)) == content(tmp_path / "built")


def test_a_damaged_copy_in_the_cache_is_never_given_and_fetched_anew(s3: S3Server, tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name), tmp_path / "cache")
    store.put(tmp_path / "built", made)
    opened = store.open(made)
    (opened / "model/model.onnx").write_bytes(b"tampered")
    assert content(store.open(made)) == content(tmp_path / "built")
    (opened / "model/model.onnx").write_bytes(b"tampered")
    away = _store(s3.url(tmp_path.name, port=1), tmp_path / "cache", patience=HASTY)
    with pytest.raises(Unavailable):
        away.open(made)


# --- removals beside puts ---


def _marked(server: S3Server, prefix: str, made: Digest, *, age_s: float) -> None:
    """What a removal writes first, then is killed."""
    S3Objects(_address(server.url(prefix))).put(f"removals/{made}/killed", b"")
    moment = time.time() - age_s
    os.utime(server.bucket / prefix / "removals" / made / "killed", (moment, moment))


def test_a_put_during_a_removal_is_refused_and_keeps_the_bundle_from_being_removed(
    s3: S3Server, tmp_path: Path
) -> None:
    made = write_artifact(tmp_path / "built")
    store = _store(s3.url(tmp_path.name), tmp_path / "cache")
    store.put(tmp_path / "built", made)
    moment = _now()
    wait_until(lambda: _now() > moment + SECOND_US, "the server's clock goes on")
    _marked(s3, tmp_path.name, made, age_s=0)
    with pytest.raises(Conflict, match="is being removed") as refused:
        store.put(tmp_path / "built", made)
    assert "put it again" in refused.value.hint
    assert not store.discard(made, unless_put_after=moment), "the put has left its claim"
    assert content(store.open(made)) == content(tmp_path / "built")


def test_the_mark_of_a_removal_that_was_killed_long_ago_hinders_nobody(tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built")
    with running_s3(tmp_path / "own") as server:
        _marked(server, "p", made, age_s=3_600)
    with running_s3(tmp_path / "own") as server:
        store = _store(server.url("p"), tmp_path / "cache")
        store.put(tmp_path / "built", made)
        assert content(store.open(made)) == content(tmp_path / "built")
        assert not [key for key in _written(server, "p") if key.startswith("removals")]


class _Killed(BaseException):
    """The end of a process, as far as a server can tell."""


class _KilledObjects(S3Objects):
    """Ends at the n-th change: it, and all that follow, never reach the server."""

    def __init__(self, address: BucketAddress, changes_max: int) -> None:
        super().__init__(address)
        self._left = changes_max

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Killed

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


@pytest.mark.parametrize("act", ["put", "discard"])
def test_a_kill_at_any_step_leaves_the_bundle_there_or_not_there(s3: S3Server, tmp_path: Path, act: str) -> None:
    made = write_artifact(tmp_path / "built")
    for step in range(100):
        address = _address(s3.url(f"{tmp_path.name}/{step}"))
        store = S3ArtifactStore(S3Objects(address), FolderArtifactStore(tmp_path / f"cache-{step}"))
        killed = S3ArtifactStore(_KilledObjects(address, step), FolderArtifactStore(tmp_path / "none"))
        if act == "discard":
            store.put(tmp_path / "built", made)
        try:
            if act == "put":
                killed.put(tmp_path / "built", made)
            else:
                assert killed.discard(made, unless_put_after=_now() + SECOND_US)
            break
        except _Killed:
            kept = store.digests()
        assert kept in ((), (made,))
        if kept:
            assert content(store.open(made)) == content(tmp_path / "built")
        inventory = store.inventory()
        for each in inventory.leftovers:
            store.discard_leftover(each.name, unless_modified_after=_now() + SECOND_US)
        for artifact in inventory.artifacts:
            assert store.discard(artifact.digest, unless_put_after=_now() + SECOND_US)
        assert _written(s3, f"{tmp_path.name}/{step}") == {}, "a later collection leaves nothing"
    assert step > len(SMALL), "there is a step for each file"


# --- memory ---


def test_a_large_bundle_is_put_and_opened_in_bounded_memory(s3: S3Server, tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built", {**SMALL, LARGE_PATH: large_file(96 * 1024 * 1024)})
    code = (
        "import re, sys; from pathlib import Path;"
        "from skewless.adapters.artifact_opening import open_artifact_store;"
        "peak_kib = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()).group(1));"
        "store = open_artifact_store(sys.argv[1], cache=Path(sys.argv[2])); begun = peak_kib();"
        "store.put(Path(sys.argv[3]), sys.argv[4]); store.open(sys.argv[4]); print(peak_kib() - begun)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        s3.url(tmp_path.name),
        str(tmp_path / "cache"),
        str(tmp_path / "built"),
        made,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < MEMORY_KIB_MAX
