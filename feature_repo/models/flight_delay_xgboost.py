"""The same question as `flight-delay`, answered by XGBoost: a training function, newer rows counting more."""

from dataclasses import replace

from feature_repo.models.flight_delay import flight_delay
from skewless.training.learner import TrainedModel, TrainingData
from skewless.training.weights import RowWeights


def fit(data: TrainingData) -> TrainedModel:
    """A fixed number of trees, as ONNX. `xgboost_trainer.to_json` would give the model to Triton's FIL backend."""
    import xgboost

    from skewless.adapters import xgboost_trainer

    parameters = {
        **xgboost_trainer.DETERMINISTIC,
        "objective": "binary:logistic",
        "learning_rate": 0.08,
        "max_depth": 6,
        "min_child_weight": 10.0,
        "lambda": 1.0,
        "seed": data.seed,
    }
    booster = xgboost.train(parameters, xgboost_trainer.matrix(data), num_boost_round=150)
    return xgboost_trainer.to_onnx(booster, data)


flight_delay_xgboost = replace(
    flight_delay, name="flight-delay-xgboost", learner=fit, weights=RowWeights(half_life_days=60.0)
)
