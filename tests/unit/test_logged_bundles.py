"""Which bundles a prediction log refers to, sealed or still in spool files."""

from pathlib import Path

import numpy as np
import pytest

from harness.shipped_logs import ship
from skewless.adapters.logged_bundles import logged_bundles
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.spool import SPOOL
from skewless.canonical_json import Digest, digest
from skewless.errors import NotFound, Unavailable
from skewless.features.frame import FeatureFrame
from skewless.serving.records import NORMAL_RUNG, AnsweredBatch
from skewless.timestamps import parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
LIVE, SHADOW, OTHER = (digest(name) for name in ("live", "shadow", "other"))


def _answered(bundle: Digest, role: str) -> AnsweredBatch:
    return AnsweredBatch(
        endpoint="flight-delay",
        bundle=bundle,
        role=role,
        rung=NORMAL_RUNG,
        request_id=role,
        as_of=NOW,
        prediction_ids=(f"{role}-0",),
        key_names=(),
        given={},
        frame=FeatureFrame(1, {}, {}, {}),
        tensor=np.zeros((1, 2), np.float32),
        outputs={"probabilities": np.zeros((1, 2), np.float32)},
        labels=("late",),
        probabilities=np.zeros(1, np.float32),
        stage_ms={},
    )


async def _log(folder: Path) -> None:
    log = FolderPredictionLog(folder, flush_ms=0)
    for bundle, role in ((LIVE, "live"), (SHADOW, "shadow")):
        log.append(_answered(bundle, role))
    await log.commit()
    await log.close()


async def test_bundles_of_every_role_are_found_in_the_store(tmp_path: Path) -> None:
    await _log(tmp_path)
    assert ship(tmp_path) == 1
    assert not list((tmp_path / SPOOL).iterdir())
    assert logged_bundles(tmp_path, (LIVE, SHADOW, OTHER)) == {LIVE, SHADOW}


async def test_bundles_of_predictions_that_only_spool_files_hold_are_found(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0)
    try:
        log.append(_answered(LIVE, "live"))
        await log.commit()
        assert not (tmp_path / "store").exists()
        assert logged_bundles(tmp_path, (LIVE, OTHER)) == {LIVE}
    finally:
        await log.close()


def test_a_log_that_is_not_there_is_no_empty_log(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="prediction log"):
        logged_bundles(tmp_path / "nowhere", (LIVE,))
    assert logged_bundles(tmp_path, (LIVE,)) == frozenset()


def test_a_log_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / SPOOL / "a-folder-in-the-place-of-a-file.spool").mkdir(parents=True)
    with pytest.raises(Unavailable, match="cannot be read"):
        logged_bundles(tmp_path, (LIVE,))
