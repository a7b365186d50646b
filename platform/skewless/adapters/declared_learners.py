"""Which adapter fits a model: that of its declared learner, or the training function itself."""

from functools import partial

from skewless.training.definition import BoostedTrees, ModelDefinition
from skewless.training.learner import TrainingFunction


def learner_of(definition: ModelDefinition) -> TrainingFunction:
    """What fits the definition's model. A library is loaded only by the learner that needs it."""
    if not isinstance(definition.learner, BoostedTrees):
        return definition.learner
    from skewless.adapters import sklearn_trainer

    return partial(sklearn_trainer.train, parameters=definition.learner)
