"""Find the smallest convolutional network that still does the work, as a plain Keras model.

Train with a regularizer that makes whole kernels, rings of kernels and whole layers vanish
(:class:`KernelCount`, :class:`KernelSize`, :class:`MultiplyAdds`, :func:`attach`,
:class:`Proximal`), read off what is
left (:func:`plan`), and rebuild the network without the rest (:func:`prune`): it computes exactly
the same.
"""

from keras_structsparse import models, surgery
from keras_structsparse._version import __version__
from keras_structsparse.ancestry import Ancestry
from keras_structsparse.attachment import attach, regularizers_of
from keras_structsparse.budget import TargetMultiplyAdds
from keras_structsparse.calibration import calibrate
from keras_structsparse.carrying import carry_optimizer
from keras_structsparse.errors import (
    CostsError,
    DatasetError,
    DeadNetworkError,
    MarksError,
    ModelError,
    OutputError,
    PlanError,
    StructSparseError,
)
from keras_structsparse.folding import folded
from keras_structsparse.monitoring import SparsityLogger
from keras_structsparse.opening import opened
from keras_structsparse.optimizers import Proximal
from keras_structsparse.plans import Plan, masked, plan
from keras_structsparse.profiles import Comparison, Profile, compare, profile
from keras_structsparse.reestimation import reestimate_batch_norm
from keras_structsparse.regularizers import KernelCount, KernelSize, MultiplyAdds
from keras_structsparse.scales import with_scales
from keras_structsparse.shrinking import Shrunk, fit_shrinking
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.sweeps import Search as SweepSearch
from keras_structsparse.sweeps import Settings as SweepSettings
from keras_structsparse.sweeps import sweep
from keras_structsparse.tracing import traced
from keras_structsparse.verification import Verification, verify

__all__ = [
    "Ancestry",
    "Comparison",
    "Costs",
    "CostsError",
    "DatasetError",
    "DeadNetworkError",
    "KernelCount",
    "KernelSize",
    "MarksError",
    "ModelError",
    "MultiplyAdds",
    "OutputError",
    "Plan",
    "PlanError",
    "Profile",
    "Proximal",
    "Shrunk",
    "SparsityLogger",
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
    "fit_shrinking",
    "folded",
    "masked",
    "models",
    "opened",
    "plan",
    "profile",
    "prune",
    "reestimate_batch_norm",
    "regularizers_of",
    "surgery",
    "sweep",
    "traced",
    "verify",
    "with_scales",
]
