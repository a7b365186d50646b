"""What is said of the code that trains: its revision, and whether anything below the repository differs from it."""

import subprocess
from pathlib import Path

import pytest

from skewless.adapters.code_revision import code_revision


@pytest.fixture
def work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git work tree with one commit, which holds a feature repository in a folder of its own."""
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, "someone")
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "someone@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "model.py").write_text("a = 1\n")
    (tmp_path / "other.py").write_text("b = 1\n")
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def test_a_clean_repository_has_a_revision(work_tree: Path) -> None:
    found = code_revision(work_tree / "features")
    assert len(found["revision"]) == 40
    assert found["dirty"] is False


def test_a_changed_or_new_file_below_the_repository_makes_it_dirty_and_one_beside_it_does_not(work_tree: Path) -> None:
    (work_tree / "other.py").write_text("b = 2\n")
    assert code_revision(work_tree / "features")["dirty"] is False
    (work_tree / "features" / "new.py").write_text("")
    assert code_revision(work_tree / "features")["dirty"] is True
    (work_tree / "features" / "new.py").unlink()
    (work_tree / "features" / "model.py").write_text("a = 2\n")
    assert code_revision(work_tree / "features")["dirty"] is True


def test_where_git_knows_nothing_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_revision(tmp_path) == {"revision": None, "dirty": None}
    assert code_revision(tmp_path / "gone") == {"revision": None, "dirty": None}


def test_without_git_nothing_is_said(work_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(work_tree))
    assert code_revision(work_tree) == {"revision": None, "dirty": None}
