"""Peers of the benchmark: what runs in their environments, and how they are asked."""

import ast
import json
from importlib import metadata
from pathlib import Path

import pytest

from bench.peers.environments import REQUIREMENTS
from bench.peers.services import PEERS, Peer

PEER_MODULES = ("predictor", "fit", "bentoml_service", "litserve_server", "mlserver_runtime", "ray_app")
ENTITIES: dict[str, list[object]] = {
    "customer": [1, 2],
    "product": ["p", "q"],
    "courier": ["c", "d"],
    "quantity": [None, 2.5],
}


def _imported(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("name", PEER_MODULES)
def test_what_runs_in_a_peers_environment_needs_no_skewless(name: str) -> None:
    folder = REQUIREMENTS.parent
    ours = {each for each in _imported(folder / f"{name}.py") if each.startswith(("bench", "skewless"))}
    assert ours <= {"bench.peers.predictor", "bench.textbook.transform"}
    assert not [each for each in _imported(folder.parent / "textbook" / "transform.py") if each.startswith("skewless")]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_the_feast_and_scikit_learn_that_are_locked_here(peer: Peer) -> None:
    lines = (REQUIREMENTS / f"{peer.name}.txt").read_text().split()
    assert lines[0].startswith(peer.name), "the framework itself comes first"
    for package, named in (("feast", "feast[redis]"), ("scikit-learn", "scikit-learn"), ("onnxruntime", "onnxruntime")):
        assert f"{named}=={metadata.version(package)}" in lines


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_asked_for_every_row_with_what_is_unknown_told_as_such(peer: Peer) -> None:
    body = json.loads(json.dumps(peer.body(ENTITIES)))
    if "instances" in body:
        assert body["instances"] == [
            {"customer": 1, "product": "p", "courier": "c", "quantity": None},
            {"customer": 2, "product": "q", "courier": "d", "quantity": 2.5},
        ]
        return
    tensors = {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in body["inputs"]}
    assert tensors["quantity"] == ("FP64", [2], [0.0, 2.5])
    assert tensors["quantity_known"] == ("BOOL", [2], [False, True])
    assert tensors["customer"] == ("INT64", [2], [1, 2])
    assert tensors["product"] == ("BYTES", [2], ["p", "q"])


def test_probabilities_are_found_in_the_answers_of_every_peer() -> None:
    rows = [{"label": "no", "probability": 0.25}, {"label": "yes", "probability": 0.75}]
    outputs = [{"name": "label", "data": ["no", "yes"]}, {"name": "probability", "data": [0.25, 0.75]}]
    answers = {"bentoml": rows, "litserve": {"predictions": rows}, "mlserver": {"outputs": outputs}}
    for peer in PEERS:
        assert peer.positive(answers.get(peer.name, {"predictions": rows})) == [0.25, 0.75]
