"""What a bundle that may answer falls back to is needed, though no route names it."""

from dataclasses import replace
from pathlib import Path

from harness.bundles import content
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.bundle import write_bundle
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.serving_profile import ServingProfile, Target
from skewless.canonical_json import digest
from skewless.cli.artifact_commands import named_fallbacks


def test_fallbacks_of_routed_bundles_are_referenced_on_every_target(tmp_path: Path) -> None:
    store = FolderArtifactStore(tmp_path / "artifacts")
    one, other = digest("one"), digest("other")
    profile = ServingProfile(
        degrade=DegradeLadder(fallback=one),
        overrides={Target.GPU_TENSORRT: ServingProfile(degrade=DegradeLadder(fallback=other))},
    )
    naming = write_bundle(replace(content(), serving=profile), tmp_path / "naming")
    store.put(tmp_path / "naming", naming)
    plain = write_bundle(content(), tmp_path / "plain")
    store.put(tmp_path / "plain", plain)
    assert named_fallbacks(store, [naming, plain]) == {one, other}
    assert named_fallbacks(store, [plain]) == frozenset()
