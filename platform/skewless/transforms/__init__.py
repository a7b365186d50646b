"""Transforms: column expressions declared in Python, fitted on training rows, run alike on one row and on many."""

from skewless.transforms.execution import PreparedTransform
from skewless.transforms.expressions import Expression, column, polynomial, where
from skewless.transforms.folds import out_of_fold
from skewless.transforms.spec import SEMANTICS_VERSION, FittedTransform, Transform

__all__ = [
    "SEMANTICS_VERSION",
    "Expression",
    "FittedTransform",
    "PreparedTransform",
    "Transform",
    "column",
    "out_of_fold",
    "polynomial",
    "where",
]
