"""What every artifact store keeps to, over the folder and over a real S3-compatible server."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.artifacts import SMALL, content, large_file, write_artifact
from harness.s3 import S3Server, running_s3, use_credentials
from harness.servers import wait_until
from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.s3_objects import S3Objects
from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.garbage import collect_garbage
from skewless.bundles.manifest import MANIFEST
from skewless.canonical_json import Digest, digest
from skewless.errors import BundleRefused, Conflict, InvalidDefinition, NotFound
from skewless.timestamps import SECOND_US, Micros

HOUR_S = 3_600
LARGE_PATH = "model/weights.bin"
LARGE_BYTES = 20 * 1024 * 1024 + 7
"""Three pieces on S3, the last one short."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kind of store keeps its bundles. A small file is kept as it is, under `<digest>/<path>`."""

    open: Callable[[], ArtifactStore]
    """The store as one more process sees it."""
    root: Path
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]
    clock_step_s: float
    """What is written so much apart has different times."""

    def later(self) -> Micros:
        """A moment after all that was written so far, and before all that is written next."""
        self._wait_a_step()
        moment = now()
        self._wait_a_step()
        return moment

    def _wait_a_step(self) -> None:
        begun_s = time.monotonic()
        wait_until(lambda: time.monotonic() > begun_s + self.clock_step_s, "the clock goes on")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        root = tmp_path / "artifacts"
        return Place(
            open=lambda: open_artifact_store(str(root), cache=tmp_path / "unused"),
            root=root,
            read=lambda key: (root / key).read_bytes(),
            write=lambda key, data: write_below(root, key, data),
            remove=lambda key: (root / key).unlink(),
            clock_step_s=0.02,
        )
    server: S3Server = request.getfixturevalue("s3")
    use_credentials(monkeypatch)
    url = server.url(prefix := f"{request.node.originalname}-{tmp_path.name}")
    caches = (tmp_path / f"cache-{number}" for number in itertools.count())
    objects = S3Objects(bucket_address(url))
    return Place(
        open=lambda: open_artifact_store(url, cache=next(caches)),
        root=server.bucket / prefix,
        read=lambda key: read_object(objects, key),
        write=objects.put,
        remove=objects.delete,
        clock_step_s=1.0,
    )


def write_below(root: Path, key: str, data: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(data)


def read_object(objects: S3Objects, key: str) -> bytes:
    found = objects.get(key, bytes_max=1 << 30)
    assert found is not None
    return bytes(found.data)


def bucket_address(url: str) -> BucketAddress:
    address = parse_artifacts_url(url)
    assert isinstance(address, BucketAddress)
    return address


@pytest.fixture
def store(place: Place) -> ArtifactStore:
    return place.open()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return tmp_path / "built"


def now() -> Micros:
    return Micros(time.time_ns() // 1_000)


def test_an_opened_bundle_has_the_bytes_that_were_put(place: Place, store: ArtifactStore, built: Path) -> None:
    made = write_artifact(built)
    assert store.put(built, made) == made, "the location is relative to the store, so that the store can move"
    for each in (store, place.open()):
        assert content(each.open(made)) == content(built)
    assert store.verify(made) == sum(map(len, content(built).values()))


def test_a_large_file_comes_back_whole(place: Place, store: ArtifactStore, built: Path) -> None:
    made = write_artifact(built, {**SMALL, LARGE_PATH: large_file(LARGE_BYTES)})
    store.put(built, made)
    assert content(place.open().open(made)) == content(built)


def test_putting_again_is_harmless_and_makes_the_put_time_now(place: Place, store: ArtifactStore, built: Path) -> None:
    made = write_artifact(built)
    store.put(built, made)
    moment = place.later()
    [before] = store.inventory().artifacts
    store.put(built, made)
    [after] = store.inventory().artifacts
    assert before.put_time <= moment < after.put_time
    assert before.size_bytes == after.size_bytes == sum(map(len, content(built).values()))
    assert content(place.open().open(made)) == content(built)


def test_digests_are_listed_sorted_and_nothing_else_is(place: Place, store: ArtifactStore, tmp_path: Path) -> None:
    assert store.digests() == ()
    made = [write_artifact(tmp_path / name, name=name) for name in ("one", "two", "three")]
    for name, each in zip(("one", "two", "three"), made, strict=True):
        store.put(tmp_path / name, each)
    for name in ("notes.txt", "half/model/x"):
        place.write(name, b"not a bundle")
    assert store.digests() == tuple(sorted(made))
    assert [each.digest for each in store.inventory().artifacts] == sorted(made)


def test_an_unknown_digest_is_not_found_and_the_known_ones_are_named(store: ArtifactStore, built: Path) -> None:
    made, unknown = write_artifact(built), digest("unknown")
    store.put(built, made)
    for act in (store.open, store.verify, store.delete):
        with pytest.raises(NotFound, match=f"Known: `{made}`"):
            act(unknown)
    assert not store.discard(unknown, unless_put_after=now())


@pytest.mark.parametrize("name", ["../escape", "/etc", "", "A" * 64, "a" * 63])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: ArtifactStore, built: Path, name: str) -> None:
    write_artifact(built)
    for act in (
        lambda: store.put(built, Digest(name)),
        lambda: store.open(Digest(name)),
        lambda: store.verify(Digest(name)),
        lambda: store.delete(Digest(name)),
        lambda: store.discard(Digest(name), unless_put_after=0),
    ):
        with pytest.raises(InvalidDefinition, match="64 lower-case"):
            act()


def test_a_folder_with_another_digest_is_refused_and_nothing_is_kept(store: ArtifactStore, built: Path) -> None:
    write_artifact(built)
    with pytest.raises(BundleRefused, match=MANIFEST):
        store.put(built, digest("another"))
    assert store.digests() == ()


def test_a_folder_that_is_not_there_is_refused(store: ArtifactStore, built: Path) -> None:
    with pytest.raises(BundleRefused, match="does not exist"):
        store.put(built, digest("nothing"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="torn"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), id="tampered"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"?"), id="longer"),
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: (path.rename(path.with_name("b")), path.symlink_to("b")), id="link"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_files_name_and_nothing_is_kept(
    store: ArtifactStore, built: Path, damage: Callable[[Path], object]
) -> None:
    made = write_artifact(built)
    damage(built / "model/model.onnx")
    with pytest.raises(BundleRefused, match=r"model/(model\.onnx|b)`"):
        store.put(built, made)
    assert store.digests() == ()
    assert store.inventory().artifacts == ()


@pytest.mark.parametrize("path", ["model/model.onnx", "contract.json", MANIFEST])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="torn"),
        pytest.param(lambda data: data[:-1] + b"?", id="tampered"),
        pytest.param(lambda data: data + b"?", id="longer"),
    ],
)
def test_a_damaged_artifact_is_refused_with_the_files_name_until_it_is_put_again(
    place: Place, store: ArtifactStore, built: Path, path: str, damage: Callable[[bytes], bytes]
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    place.write(f"{made}/{path}", damage(place.read(f"{made}/{path}")))
    for act in (place.open().open, store.verify):
        with pytest.raises(BundleRefused, match=f"`{path}`"):
            act(made)
    store.put(built, made)
    assert content(place.open().open(made)) == content(built)


def test_an_artifact_that_lacks_a_file_is_refused_with_its_name(
    place: Place, store: ArtifactStore, built: Path
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    place.remove(f"{made}/model/model.onnx")
    with pytest.raises(BundleRefused, match=r"`model/model\.onnx` is missing"):
        place.open().open(made)


def test_a_deleted_bundle_is_gone_and_leaves_nothing(place: Place, store: ArtifactStore, tmp_path: Path) -> None:
    gone, kept = (write_artifact(tmp_path / name, name=name) for name in ("gone", "kept"))
    store.put(tmp_path / "gone", gone)
    store.put(tmp_path / "kept", kept)
    store.open(gone)
    store.delete(gone)
    assert store.digests() == (kept,)
    assert store.inventory().leftovers == ()
    assert not [path for path in place.root.rglob("*") if path.is_file() and gone in str(path)]
    with pytest.raises(NotFound):
        store.open(gone)
    store.put(tmp_path / "gone", gone)
    assert store.digests() == tuple(sorted((gone, kept)))


def test_puts_of_one_digest_at_once_all_succeed_and_keep_one_copy(place: Place, built: Path) -> None:
    made = write_artifact(built, {**SMALL, LARGE_PATH: large_file(LARGE_BYTES)})
    barrier = threading.Barrier(4)
    locations: list[str] = []

    def put() -> None:
        store = place.open()
        barrier.wait()
        locations.append(store.put(built, made))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert locations == [made] * 4
    inventory = place.open().inventory()
    assert [each.digest for each in inventory.artifacts] == [made]
    assert inventory.leftovers == ()
    assert content(place.open().open(made)) == content(built)


def test_opens_of_one_digest_at_once_all_give_the_whole_bundle(place: Place, store: ArtifactStore, built: Path) -> None:
    made = write_artifact(built)
    store.put(built, made)
    opened: list[Path] = []
    threads = [threading.Thread(target=lambda: opened.append(store.open(made))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [content(folder) for folder in opened] == [content(built)] * 4


def test_a_discard_spares_what_was_put_after_the_moment(place: Place, store: ArtifactStore, built: Path) -> None:
    made = write_artifact(built)
    moment = place.later()
    store.put(built, made)
    assert not store.discard(made, unless_put_after=moment)
    assert content(place.open().open(made)) == content(built)
    assert store.discard(made, unless_put_after=place.later())
    assert store.digests() == ()
    assert store.inventory().leftovers == ()
    assert not store.discard(made, unless_put_after=place.later())


def test_garbage_is_what_nobody_refers_to_and_is_old(place: Place, store: ArtifactStore, tmp_path: Path) -> None:
    old, busy, live, young = names = ("old", "busy", "live", "young")
    made = {name: write_artifact(tmp_path / name, name=name) for name in names}
    for name in (old, busy, live):
        store.put(tmp_path / name, made[name])
    moment = place.later()
    store.put(tmp_path / young, made[young])
    report = collect_garbage(
        store,
        frozenset({made[live]}),
        older_than_s=HOUR_S,
        now=Micros(moment + HOUR_S * SECOND_US),
        retire=lambda each: each != made[busy],
    )
    assert report.removed == (made[old],)
    assert report.spared == (made[busy],)
    assert store.digests() == tuple(sorted(made[name] for name in (busy, live, young)))
    assert (report.plan.referenced, report.plan.young, report.plan.missing) == (1, 1, ())
    assert report.bytes_freed == sum(map(len, content(tmp_path / old).values()))


def test_a_put_is_never_undone_by_a_removal_that_only_takes_what_is_old(place: Place, built: Path) -> None:
    made = write_artifact(built)
    margin_us = int((place.clock_step_s + 0.2) * SECOND_US)
    ended = threading.Event()
    removals: list[bool] = []

    def keep_removing() -> None:
        store = place.open()
        while not ended.is_set():
            removals.append(store.discard(made, unless_put_after=now() - margin_us))

    thread = threading.Thread(target=keep_removing)
    thread.start()
    try:
        for _ in range(5):
            begun = put_beside_removals(place.open(), built, made)
            try:
                assert content(place.open().open(made)) == content(built)
            except (NotFound, BundleRefused):
                assert now() - begun > margin_us, "it was removed although it was put just now"
            known = len(removals)
            wait_until(lambda known=known: any(removals[known:]), "it is old and removed")  # type: ignore[misc]  # bound now
    finally:
        ended.set()
        thread.join()


def put_beside_removals(store: ArtifactStore, folder: Path, made: Digest) -> Micros:
    """Put until no removal is under way; returns when the put that succeeded began."""
    while True:
        begun = now()
        try:
            store.put(folder, made)
        except Conflict:
            continue
        return begun
