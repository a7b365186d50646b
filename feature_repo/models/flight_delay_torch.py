"""The same question as `flight-delay`, answered by a small neural network. Needs `pip install torch`."""

from dataclasses import replace

from feature_repo.models.flight_delay import flight_delay
from skewless.training.calibration import CalibrationKind
from skewless.training.learner import TrainedModel, TrainingData

EPOCHS = 4
BATCH_ROWS = 512


def fit(data: TrainingData) -> TrainedModel:
    """A multilayer perceptron over normalised columns, as ONNX; the same weights on one machine for the same seed."""
    from skewless.adapters import torch_trainer

    torch = torch_trainer.require_torch()
    torch.manual_seed(data.seed)
    torch.use_deterministic_algorithms(True)
    columns = len(data.output_names)
    model = torch.nn.Sequential(
        torch.nn.BatchNorm1d(columns),
        torch.nn.Linear(columns, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 1),
        torch.nn.Sigmoid(),
    )
    rows = torch.utils.data.TensorDataset(
        torch.from_numpy(data.tensor), torch.from_numpy(data.labels).float(), torch.from_numpy(data.weights).float()
    )
    order = torch.Generator().manual_seed(data.seed)
    batches = torch.utils.data.DataLoader(rows, batch_size=BATCH_ROWS, shuffle=True, drop_last=True, generator=order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        data.progress(f"epoch {epoch + 1} of {EPOCHS}")
        for features, label, weight in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy(model(features).reshape(-1), label, weight)
            loss.backward()
            optimizer.step()
    return torch_trainer.to_onnx(model, data)


flight_delay_torch = replace(flight_delay, name="flight-delay-torch", learner=fit, calibration=CalibrationKind.SIGMOID)
