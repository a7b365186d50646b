"""The same question as `flight-delay`, answered by LightGBM: a training function, early stopping, a calibration."""

from dataclasses import replace

from feature_repo.models.flight_delay import flight_delay
from skewless.training.calibration import CalibrationKind
from skewless.training.learner import TrainedModel, TrainingData


def fit(data: TrainingData) -> TrainedModel:
    """Trees until the newest tenth of the rows is predicted no better, as ONNX."""
    import lightgbm

    from skewless.adapters import lightgbm_trainer

    newest = data.newest(0.1)
    parameters = {
        **lightgbm_trainer.DETERMINISTIC,
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": 0.08,
        "num_leaves": 31,
        "min_data_in_leaf": 80,
        "lambda_l2": 1.0,
        "seed": data.seed,
    }
    booster = lightgbm.train(
        parameters,
        lightgbm_trainer.dataset(data, ~newest),
        num_boost_round=300,
        valid_sets=[lightgbm_trainer.dataset(data, newest)],
        callbacks=[lightgbm.early_stopping(20, verbose=False)],
    )
    return lightgbm_trainer.to_onnx(booster, data)


flight_delay_lightgbm = replace(
    flight_delay, name="flight-delay-lightgbm", learner=fit, calibration=CalibrationKind.SIGMOID
)
