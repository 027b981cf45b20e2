"""Export models to SavedModel, LiteRT and ONNX, and run them in a process without this package.

``keras_structsparse.export`` is this package, and as the public function ``kss.export`` it can
also be called: ``kss.export(model, path, format)`` is
:func:`keras_structsparse.export.verified.export`.
"""

import inspect
import sys
from types import ModuleType
from typing import Any

from keras_structsparse.export.verified import Exported, export

__all__ = ["Exported", "export"]

__signature__ = inspect.signature(export)


class _CallablePackage(ModuleType):
    """A package that can be called.

    If ``kss.export`` were replaced by the function, ``import keras_structsparse.export.formats as
    formats`` would look for ``formats`` in the function and fail.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Exported:
        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
