"""Find the smallest convolutional network that still does the work, as a plain Keras model.

Train with a regularizer that makes whole kernels, rings of kernels and whole layers vanish
(:class:`KernelCount`, :class:`KernelSize`, :class:`MultiplyAdds`, :func:`attach`,
:class:`Proximal`), read off what is
left (:func:`plan`), and rebuild the network without the rest (:func:`prune`): it computes exactly
the same.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if not (Path(__file__).parent / "models").is_dir():
    # In a clone, the zoo lies beside the package; an installed package holds it.
    __path__.append(str(Path(__file__).parents[1]))

from keras_structsparse import models, surgery
from keras_structsparse._version import __version__

# Modules that were part of the package's face before they moved into rooms.
from keras_structsparse.data import datasets  # noqa: F401
from keras_structsparse.errors import (
    CostsError,
    DatasetError,
    DeadNetworkError,
    DivergedError,
    MarksError,
    ModelError,
    OutputError,
    PlanError,
    StructSparseError,
)
from keras_structsparse.export.verified import Exported
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.batch_norm_scale import with_scales
from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.graph.inlining import opened
from keras_structsparse.graph.model_files.loading import load_model
from keras_structsparse.graph.tracing import traced
from keras_structsparse.profiling import latency  # noqa: F401
from keras_structsparse.profiling.calibration import calibrate
from keras_structsparse.profiling.planning import plan
from keras_structsparse.profiling.profile import Comparison, Profile, compare, profile
from keras_structsparse.regularizers import KernelCount, KernelSize, MultiplyAdds
from keras_structsparse.regularizers.attachment import attach, penalty, regularizers_of
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.verification import Verification, verify
from keras_structsparse.sweeps import Search as SweepSearch
from keras_structsparse.sweeps import Settings as SweepSettings
from keras_structsparse.sweeps import sweep
from keras_structsparse.sweeps.hypermodel import ShrinkAfterFit
from keras_structsparse.training.callbacks.pruned_metrics import PrunedMetrics
from keras_structsparse.training.callbacks.sparsity_logger import SparsityLogger
from keras_structsparse.training.callbacks.stop_on_nan import StopOnNaN
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
from keras_structsparse.training.measured_saliency import saliency
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.optimizer_state import carry_optimizer
from keras_structsparse.training.shrink.latency import Latency
from keras_structsparse.training.shrink.method import ShrinkMethod
from keras_structsparse.training.shrink.result import ShrinkResult
from keras_structsparse.training.shrink.shrink import shrink
from keras_structsparse.training.shrinking import Shrunk, fit_shrinking

if TYPE_CHECKING:
    from keras_structsparse.export.verified import export
else:
    from keras_structsparse import export  # a package that can be called; see its docstring

__all__ = [
    "Ancestry",
    "Comparison",
    "Costs",
    "CostsError",
    "DatasetError",
    "DeadNetworkError",
    "DivergedError",
    "Exported",
    "KernelCount",
    "KernelSize",
    "Latency",
    "MarksError",
    "ModelError",
    "MultiplyAdds",
    "OutputError",
    "Plan",
    "PlanError",
    "Profile",
    "Proximal",
    "PrunedMetrics",
    "Saliency",
    "ShrinkAfterFit",
    "ShrinkMethod",
    "ShrinkResult",
    "Shrunk",
    "SparsityLogger",
    "StopOnNaN",
    "StructSparseError",
    "SweepSearch",
    "SweepSettings",
    "TargetMultiplyAdds",
    "Verification",
    "__version__",
    "attach",
    "calibrate",
    "carry_optimizer",
    "compare",
    "export",
    "fit_shrinking",
    "folded",
    "load_model",
    "masked",
    "models",
    "opened",
    "penalty",
    "plan",
    "profile",
    "prune",
    "reestimate_batch_norm",
    "regularizers_of",
    "saliency",
    "shrink",
    "surgery",
    "sweep",
    "traced",
    "verify",
    "with_scales",
]
