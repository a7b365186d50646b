"""For processes that use Arrow and no pandas: Arrow looks for one at its first array, for a second and 50 MB."""

import sys
from importlib.abc import MetaPathFinder


def leave_pandas_out() -> None:
    """Have nothing in this process find pandas from now on; to be called before Arrow is used."""
    sys.meta_path.insert(0, _NoPandas())


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        """Nothing about any other module."""
        if fullname == "pandas":
            raise ModuleNotFoundError("this process does without pandas", name=fullname)
