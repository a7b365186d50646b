"""Features read straight from the online store, without a gateway: the same values, ages and statuses that it serves.

>>> from skewless.online import FeatureReader
>>> with FeatureReader("redis://127.0.0.1:6379", "contract.json") as reader:  # doctest: +SKIP
...     table = reader.read({"origin": ["JFK", "LGA"]})
"""

from skewless.online.features import FeatureSet, load_features, registered_features
from skewless.online.reader import AsyncFeatureReader, FeatureReader
from skewless.online.table import FeatureTable

__all__ = ["AsyncFeatureReader", "FeatureReader", "FeatureSet", "FeatureTable", "load_features", "registered_features"]
