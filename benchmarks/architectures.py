"""The networks that surgery is tried on: keras.applications and KerasHub's backbones, untrained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

Builder = Callable[[], keras.Model]

LARGE = (
    *("ResNet152", "ResNet152V2", "EfficientNetB5", "EfficientNetV2L", "EfficientNetB6"),
    *("EfficientNetB7", "ConvNeXtBase", "ConvNeXtLarge", "NASNetLarge", "ConvNeXtXLarge"),
)
"""Those that take minutes; they come last."""


def builders() -> dict[str, Builder]:
    """All networks by name, small ones first."""
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    ordered = sorted(names, key=lambda name: (LARGE.index(name) if name in LARGE else -1, name))
    applications = {name: partial(application, name) for name in ordered}
    hub = {f"KerasHub {name}": partial(backbone, *entry) for name, entry in HUB.items()}
    return {**hub, **applications, "KerasHub DeepLabV3": deeplab}


def application(name: str) -> keras.Model:
    """One of keras.applications with its classifier, for the smallest images that all take.

    The outputs are logits: a softmax could saturate and hide differences.
    """
    side = 75 if name.startswith(("Inception", "Xception")) else 32
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(side, side, 3), classifier_activation=None)


def backbone(kind: str, options: dict[str, Any]) -> keras.Model:
    """A KerasHub backbone with random weights."""
    import keras_hub

    return getattr(keras_hub.models, kind)(**options)


def deeplab() -> keras.Model:
    """KerasHub's DeepLabV3+ with its segmentation head over a small ResNet."""
    import keras_hub

    encoder = backbone(
        "ResNetBackbone",
        {**_resnet("basic_block"), "input_conv_filters": [64], "image_shape": (64, 64, 3)},
    )
    features = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        projection_filters=8,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[2, 3, 4],
        image_shape=(64, 64, 3),
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone=features, num_classes=5)


def _resnet(block: str, **options: Any) -> dict[str, Any]:
    return {
        "input_conv_filters": [16],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 32, 64],
        "stackwise_num_blocks": [2, 2, 2],
        "stackwise_num_strides": [1, 2, 2],
        "block_type": block,
        "image_shape": (32, 32, 3),
        **options,
    }


def _cspnet(stage: str, block: str, **options: Any) -> dict[str, Any]:
    return {
        "stage_type": stage,
        "stem_filters": 16,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 2],
        "stackwise_strides": [1, 2, 2],
        "stackwise_num_filters": [16, 32, 64],
        "block_type": block,
        "image_shape": (32, 32, 3),
        **options,
    }


def _hgnet(light: bool, affine: bool) -> dict[str, Any]:
    return {
        "depths": [1, 2, 2],
        "embedding_size": 16,
        "hidden_sizes": [32, 64, 96],
        "stem_channels": [3, 16, 16],
        "hidden_act": "relu",
        "use_learnable_affine_block": affine,
        "stackwise_stage_filters": [
            (16, 8, 32, 1, 2, 3),
            (32, 16, 64, 2, 2, 3),
            (64, 24, 96, 2, 2, 5),
        ],
        "apply_downsample": [False, True, True],
        "use_lightweight_conv_block": [False, light, light],
        "image_shape": (64, 64, 3),
    }


_BOTTLE = {"bottle_ratio": [0.5], "expand_ratio": [2.0], "cross_linear": True}
_VD = {"input_conv_filters": [8, 8, 16], "input_conv_kernel_sizes": [3, 3, 3]}
_MOBILENET = {
    "stackwise_expansion": [[16, 24], [32, 48]],
    "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[16, 16], [24, 24]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 64,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 48,
    "squeeze_and_excite": 0.5,
    "image_shape": (64, 64, 3),
}
_MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[24], [48, 48]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0]],
    "stackwise_key_dims": [[0], [0, 0]],
    "stackwise_value_dims": [[0], [0, 0]],
    "stackwise_kv_strides": [[0], [0, 0]],
    "stackwise_use_cpe": [[False], [False, False]],
    "use_msfa": False,
    "image_shape": (64, 64, 3),
}
_EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 2],
    "stackwise_input_filters": [16, 16, 24, 32],
    "stackwise_output_filters": [16, 24, 32, 40],
    "stackwise_expansion_ratios": [1, 4, 4, 6],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 1],
    "stackwise_block_types": ["fused", "fused", "unfused", "unfused"],
    "stackwise_width_coefficients": [1.0] * 4,
    "stackwise_depth_coefficients": [1.0] * 4,
    "num_features": 64,
    "input_shape": (64, 64, 3),
}
_MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "image_shape": (64, 64, 3),
    "hidden_dims": [16, 32],
}

HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet": ("ResNetBackbone", _resnet("bottleneck_block")),
    "ResNet v2": ("ResNetBackbone", _resnet("bottleneck_block", use_pre_activation=True)),
    "ResNet vd": ("ResNetBackbone", _resnet("bottleneck_block_vd", **_VD)),
    "DenseNet": (
        "DenseNetBackbone",
        {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8, "image_shape": (32, 32, 3)},
    ),
    "MobileNet": ("MobileNetBackbone", _MOBILENET),
    "MobileNetV5": ("MobileNetV5Backbone", _MOBILENET_V5),
    "EfficientNet": ("EfficientNetBackbone", _EFFICIENTNET),
    "Xception": (
        "XceptionBackbone",
        {
            "stackwise_conv_filters": [[8, 16], [16, 32], [32, 32]],
            "stackwise_pooling": [True, True, False],
            "image_shape": (64, 64, 3),
        },
    ),
    "VGG": (
        "VGGBackbone",
        {
            "stackwise_num_repeats": [1, 2, 2],
            "stackwise_num_filters": [16, 32, 32],
            "image_shape": (32, 32, 3),
        },
    ),
    "CSPNet dark": ("CSPNetBackbone", _cspnet("dark", "dark_block")),
    "CSPNet edge": ("CSPNetBackbone", _cspnet("csp", "edge_block", **_BOTTLE)),
    "CSPNet bottleneck": ("CSPNetBackbone", _cspnet("cs3", "bottleneck_block", **_BOTTLE)),
    "HGNetV2": ("HGNetV2Backbone", _hgnet(light=False, affine=False)),
    "HGNetV2 light": ("HGNetV2Backbone", _hgnet(light=True, affine=True)),
    "MiT": ("MiTBackbone", _MIT),
}
"""Type and options of each backbone: every kind of block, few and narrow layers."""
