"""Writes the MLflow model directories that tests/integration/test_mlflow_import.py reads, with MLflow itself.

MLflow is no dependency of the project. To write them again:

    python -m venv other
    other/bin/pip install mlflow-skinny lightgbm xgboost-cpu scikit-learn onnx skl2onnx pandas
    other/bin/python scripts/make_mlflow_models.py

Kept of each directory are `MLmodel` and the model's file; `expected.json` has rows and what each library says of them.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import lightgbm
import mlflow.lightgbm
import mlflow.onnx
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

TARGET = Path(__file__).parents[1] / "tests" / "integration" / "mlflow_models"
NAMES = ("temp", "late", "cars")
SEED = 3


def main() -> None:
    """Write every directory."""
    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(400, len(NAMES))).astype(np.float32)
    labels = rows[:, 0] + rows[:, 1] + rng.normal(size=len(rows)) > 0
    frame = pd.DataFrame(rows, columns=list(NAMES))
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 4, "verbose": -1, "seed": SEED, "num_threads": 1},
        lightgbm.Dataset(rows, labels, feature_name=list(NAMES)),
        5,
    )
    trees = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 2, "seed": SEED}, xgboost.DMatrix(frame, labels), 5
    )
    linear = LogisticRegression().fit(frame.to_numpy(), labels)
    wrapped = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=3, verbose=-1).fit(frame, labels)
    signature = infer_signature(frame, booster.predict(rows))
    plain = {"pip_requirements": ["none"]}
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow.lightgbm.save_model(booster, folder / "lightgbm", signature=signature, **plain)
        for form in ("json", "ubj"):
            path = folder / f"xgboost_{form}"
            mlflow.xgboost.save_model(trees, path, signature=signature, model_format=form, **plain)
        exported = to_onnx(linear, rows[:1], options={"zipmap": False}, target_opset=17)
        by_tensor = infer_signature(rows, linear.predict_proba(rows).astype(np.float32))
        mlflow.onnx.save_model(exported, folder / "onnx", signature=by_tensor, **plain)
        with_maps = to_onnx(linear, rows[:1], target_opset=17)
        mlflow.onnx.save_model(with_maps, folder / "onnx_maps", signature=by_tensor, **plain)
        pickled = {"serialization_format": "cloudpickle", "signature": signature, **plain}
        mlflow.sklearn.save_model(linear, folder / "sklearn", **pickled)
        mlflow.lightgbm.save_model(wrapped, folder / "lightgbm_wrapped", **pickled)
        for source in sorted(folder.iterdir()):
            keep(source, TARGET / source.name)
    shown = rows[:20]
    expected = {
        "rows": shown.tolist(),
        "lightgbm": booster.predict(shown).tolist(),
        "xgboost": trees.predict(xgboost.DMatrix(pd.DataFrame(shown, columns=list(NAMES)))).tolist(),
        "onnx": linear.predict_proba(shown)[:, 1].tolist(),
    }
    (TARGET / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    sys.stdout.write(f"{TARGET.name}: {', '.join(sorted(each.name for each in TARGET.iterdir()))}\n")


def keep(source: Path, target: Path) -> None:
    """Copy the description and the model's file."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name == "MLmodel" or path.name.startswith("model."):
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    main()
