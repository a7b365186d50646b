"""A prediction service as tutorials write it: FastAPI, pydantic, Feast's SDK, scikit-learn and tritonclient.

Nothing in it is slow on purpose. Every library is used as its own documentation shows, models are loaded once, the
feature registry is cached, and the handler is a plain function, which FastAPI runs in its pool of threads, because all
that it calls blocks.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it ships no types
import numpy as np
from fastapi import FastAPI, Request
from feast import FeatureStore
from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from bench.textbook.transform import typed


class Settings(BaseSettings):
    """Where everything is."""

    model_config = SettingsConfigDict(env_prefix="TEXTBOOK_")

    feature_repository: Path
    feature_service: str
    artifacts: Path = Field(description="Folder with the pickled pipeline.")
    triton: str
    model: str


class Instance(BaseModel):
    """One row."""

    customer: int
    product: str
    courier: str
    quantity: float | None = None


class PredictRequest(BaseModel):
    """What is asked."""

    instances: list[Instance] = Field(min_length=1, max_length=1_000)


class Prediction(BaseModel):
    """One row's answer."""

    label: str
    probability: float


class PredictResponse(BaseModel):
    """What is answered."""

    predictions: list[Prediction]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load and connect everything once."""
    settings = Settings()  # type: ignore[call-arg]  # pydantic-settings fills it from the environment
    app.state.store = FeatureStore(repo_path=str(settings.feature_repository))
    app.state.service = app.state.store.get_feature_service(settings.feature_service)
    app.state.groups, app.state.transform = joblib.load(settings.artifacts / "pipeline.joblib")
    app.state.triton = InferenceServerClient(settings.triton)
    app.state.model = settings.model
    yield
    app.state.triton.close()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(body: PredictRequest, request: Request) -> PredictResponse:
    """Answer one prediction for each instance."""
    state: Any = request.app.state
    rows = [instance.model_dump() for instance in body.instances]
    quantities = [row.pop("quantity") for row in rows]
    features = state.store.get_online_features(
        features=state.service, entity_rows=rows, full_feature_names=True
    ).to_df()
    features["quantity"] = np.array(quantities, dtype=np.float64)
    tensor = state.transform.transform(typed(features, state.groups)).astype(np.float32)
    given = InferInput("features", tensor.shape, "FP32")
    given.set_data_from_numpy(tensor)
    wanted = [InferRequestedOutput("probabilities")]
    positive = state.triton.infer(state.model, [given], outputs=wanted).as_numpy("probabilities")[:, 1]
    return PredictResponse(
        predictions=[
            Prediction(label="yes" if probability >= 0.5 else "no", probability=probability)
            for probability in positive.tolist()
        ]
    )


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Answers as soon as everything is loaded."""
    return {"status": "ok"}
