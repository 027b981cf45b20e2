"""The layers of random networks: one function for each family, from a sketch to an expression.

To try a new layer, write a function from what can be read so far to an expression and give it a
line in ``FAMILIES``. Layers without a rule are welcome: surgery has to leave them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from strategies_graphs import Sketch


def _window(sketch: Sketch) -> str:
    """The size and the options that all kinds of convolutions take."""
    strides = sketch.one_of(1, 1, 1, 2, 3)
    dilation = sketch.one_of(1, 1, 2) if strides == 1 else 1
    return (
        f"{sketch.several(1, 5)}, strides={strides}, dilation_rate={dilation}, "
        f"padding={sketch.one_of('same', 'same', 'valid')!r}, use_bias={sketch.one_of(True, False)}"
    )


def convolution(sketch: Sketch) -> str:
    x = sketch.map()
    groups = sketch.one_of(*[g for g in (1, 1, 1, 2, 3) if sketch.channels(x) % g == 0])
    filters = groups * sketch.one_of(1, 2, 3, 4)
    options = f"groups={groups}, activation={sketch.one_of(None, None, 'relu', 'swish')!r}"
    return f"L.Conv{sketch.rank}D({filters}, {_window(sketch)}, {options})({x})"


def depthwise(sketch: Sketch) -> str:
    if sketch.rank > 2:  # Keras has none
        return convolution(sketch)
    kind, strides = sketch.one_of("Depthwise", "Separable"), sketch.one_of(1, 1, 2)
    filters = f"{sketch.one_of(2, 4)}, " if kind == "Separable" else ""
    options = f"strides={strides}, padding='same', depth_multiplier={sketch.one_of(1, 1, 2)}"
    layer = f"L.{kind}Conv{sketch.rank}D({filters}{sketch.several(1, 4)}, {options})"
    return f"{layer}({sketch.map()})"


def transposed(sketch: Sketch) -> str:
    options = f"strides={sketch.one_of(1, 2)}, padding={sketch.one_of('same', 'valid')!r}"
    size = sketch.several(1, 3)
    return (
        f"L.Conv{sketch.rank}DTranspose({sketch.one_of(2, 3)}, {size}, {options})({sketch.map()})"
    )


def normalization(sketch: Sketch) -> str:
    x = sketch.map()
    flags = f"scale={sketch.one_of(True, True, False)}, center={sketch.one_of(True, False)}"
    groups = sketch.one_of(*[g for g in (1, 2, -1) if sketch.channels(x) % g == 0])
    layer = sketch.one_of(
        *[f"BatchNormalization({flags})"] * 4,
        f"LayerNormalization({flags})",
        f"GroupNormalization({groups})",
        "UnitNormalization()",
        "RMSNormalization()",
    )
    return f"L.{layer}({x})"


def activation(sketch: Sketch) -> str:
    smooth = f"Activation({sketch.one_of('swish', 'sigmoid', 'tanh', 'gelu', 'softplus')!r})"
    others = ("ReLU(6.0)", "ReLU(None, 0.1, 0.5)", "LeakyReLU(0.2)", "ELU()", "PReLU()")
    mixing = ("Softmax()", "Activation('softmax')")
    layer, x = sketch.one_of(smooth, smooth, smooth, *others, *mixing), sketch.map()
    if layer in mixing and sketch.channels(x) == 1:
        return f"L.Activation('tanh')({x})"  # Keras warns of a softmax over one channel.
    return f"L.{layer}({x})"


def function(sketch: Sketch) -> str:
    x = sketch.map()
    return str(
        sketch.one_of(
            *(f"ops.{name}({x})" for name in ("relu", "relu6", "silu", "sigmoid", "tanh", "abs")),
            f"{x} + 0.5",
            f"{x} * 2.0",
            f"1.0 - {x}",
            f"{x} / 3.0",
            f"ops.hard_silu({x})",
            f"ops.hard_tanh({x})",
            f"ops.squareplus({x}) ** 2",
            f"ops.clip({x}, -0.5, 0.5)",
            f"ops.softmax({x}, axis=-1)" if sketch.channels(x) > 1 else f"ops.exp({x})",
            f"ops.mean({x}, axis=-1, keepdims=True)",
            f"{x}[..., 1:]" if sketch.channels(x) > 1 else f"-{x}",
        )
    )


ANY = (
    *("erf", "sin", "cos", "arctan", "arcsinh", "softsign", "softplus", "gelu", "elu", "celu"),
    *("selu", "leaky_relu", "log_sigmoid", "hard_sigmoid", "hard_shrink", "soft_shrink"),
    *("tanh_shrink", "sparse_plus", "sparse_sigmoid", "negative", "square", "stop_gradient"),
)
BOUNDED = ("exp", "expm1", "sinh", "cosh", "arctanh")
POSITIVE = ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal")


def pointwise(sketch: Sketch) -> str:
    """Functions of one entry where they are tame: no steps, which rounding could jump over."""
    x = sketch.map()
    forms = {name: f"ops.{name}({x})" for name in ANY}
    forms |= {name: f"ops.{name}(0.9 * ops.tanh({x}))" for name in BOUNDED}
    forms |= {name: f"ops.{name}(ops.abs({x}) + 0.5)" for name in POSITIVE}
    forms["threshold"] = f"ops.threshold({x}, 0.1, 0.2)"
    forms["cast"] = f"ops.cast({x}, 'float64')"
    return forms[sketch.one_of(*forms)]


def pooling(sketch: Sketch) -> str:
    if sketch.rank > 2:  # TensorFlow has none in float64
        return resizing(sketch)
    kind, padding = sketch.one_of("Average", "Max"), sketch.one_of("same", "valid")
    strides = sketch.one_of(None, 1, 2)
    size = sketch.several(1, 3)
    options = f"{size}, strides={strides}, padding={padding!r}"
    return f"L.{kind}Pooling{sketch.rank}D({options})({sketch.map()})"


ADAPTIVE = hasattr(keras.layers, "AdaptiveMaxPooling2D")
"""Whether this version of Keras has them."""


def resizing(sketch: Sketch) -> str:
    x, rank = sketch.map(), sketch.rank
    amounts = tuple((sketch.one_of(0, 1, 2), sketch.one_of(0, 1, 2)) for _ in range(rank))
    around: Any = amounts if rank > 1 else amounts[0]
    kinds = [f"ZeroPadding{rank}D({around})", f"UpSampling{rank}D(2)"]
    kinds += ["Resizing(4, 5, 'nearest')"] * (rank == 2)
    pools = [f"Adaptive{kind}Pooling{rank}D(2)" for kind in ("Average", "Max")]
    kinds += pools * (ADAPTIVE and rank < 3)  # TensorFlow has none of three axes in float64
    room = all(n > sum(cut) for n, cut in zip(sketch.shapes[x], amounts, strict=False))
    return f"L.{sketch.one_of(*kinds, *([f'Cropping{rank}D({around})'] * room))}({x})"


def unchanged(sketch: Sketch) -> str:
    layers = ("Dropout(0.5)", "GaussianNoise(1.0)", "Identity()", "ActivityRegularization(0.1)")
    noise = (f"SpatialDropout{sketch.rank}D(0.5)", "GaussianDropout(0.5)", "AlphaDropout(0.5)")
    layer = sketch.one_of(*layers, *noise, "Rescaling(0.5, 0.25)")
    return f"L.{layer}({sketch.map()})"


def merge(sketch: Sketch) -> str:
    x = sketch.map()
    kind = sketch.one_of(*["Add"] * 4, "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    other = sketch.one_of(*sketch.alike(x))
    if other == x:
        layer = f"L.Conv{sketch.rank}D({sketch.channels(x)}, 1)"
        other = sketch.add(f"{layer}({x})")
    more = [x] * sketch.one_of(0, 0, 1) if kind not in ("Subtract",) else []
    return f"L.{kind}()([{', '.join([x, other, *more])}])"


def concatenation(sketch: Sketch) -> str:
    x = sketch.map()
    others = [n for n in sketch.maps() if sketch.shapes[n][:-1] == sketch.shapes[x][:-1]]
    names = [x, sketch.one_of(*others), sketch.one_of(*others)][: sketch.one_of(2, 3)]
    form = sketch.one_of("L.Concatenate()([{}])", "ops.concatenate([{}], axis=-1)")
    return str(form.format(", ".join(names)))


def arithmetic(sketch: Sketch) -> str:
    x = sketch.map()
    y = sketch.one_of(*sketch.alike(x))
    forms = [f"{x} {sign} {y}" for sign in "+-*"]
    forms += [f"ops.{name}({x}, {y})" for name in ("maximum", "minimum")]
    forms += [f"{x} / (ops.abs({y}) + 1.0)", f"ops.divide({x}, ops.abs({y}) + 1.0)"]
    return str(sketch.one_of(*forms))


def gate(sketch: Sketch) -> str:
    x, rank = sketch.map(), sketch.rank
    kind = sketch.one_of("Average", "Average", "Max")
    y = sketch.add(f"L.Global{kind}Pooling{rank}D(keepdims=True)({x})")
    y = sketch.add(f"L.Conv{rank}D(2, 1, activation='relu')({y})")
    y = sketch.add(f"L.Conv{rank}D({sketch.channels(x)}, 1, activation='sigmoid')({y})")
    return f"L.Multiply()([{x}, {y}])"


def dense_gate(sketch: Sketch) -> str:
    x, rank = sketch.map(), sketch.rank
    width = sketch.channels(x)
    y = sketch.add(f"L.Dense({width}, 'sigmoid')(L.GlobalAveragePooling{rank}D()({x}))")
    y = sketch.add(f"L.Reshape({(1,) * rank + (width,)})({y})")
    return f"L.Multiply()([{x}, {y}])"


def shared(sketch: Sketch) -> str:
    x = sketch.map()
    width = sketch.channels(x)
    readable = [name for name in sketch.maps() if sketch.channels(name) == width]
    layer = sketch.add(f"L.Conv{sketch.rank}D({width}, 3, padding='same')", "layer")
    y = sketch.add(f"{layer}({sketch.one_of(*readable)})")
    return f"{layer}(L.ReLU()({y or x}))"


def levels(sketch: Sketch) -> str:
    """A tower of shared layers over a map and a smaller one."""
    x, rank = sketch.map(), sketch.rank
    width = sketch.one_of(2, 3)
    window = f"{sketch.several(1, 4)}, strides={sketch.one_of(1, 1, 2)}, padding='same'"
    kinds = (
        f"L.Conv{rank}D({width}, {window}, activation={sketch.one_of(None, 'relu')!r})",
        "L.BatchNormalization()",
        f"L.Conv{rank}D({width}, 1, activation='sigmoid')",
    )
    tower = [sketch.add(kind, "layer") for kind in kinds]
    y = sketch.add(f"L.Conv{rank}D({sketch.channels(x)}, 2, activation='relu')({x})")
    for layer in tower:
        x, y = sketch.add(f"{layer}({x})") or x, y and sketch.add(f"{layer}({y})")
    return f"L.UpSampling{rank}D(2)({y or x})"


def nested(sketch: Sketch) -> str:
    x = sketch.map()
    width = sketch.channels(x)
    parts = (
        f"keras.Input({sketch.shapes[x]})",
        f"L.Conv{sketch.rank}D({width}, {sketch.several(1, 3)}, padding='same')",
        "L.BatchNormalization()",
        sketch.one_of("L.ReLU()", "L.Activation('swish')"),
    )
    model = sketch.add(f"keras.Sequential([{', '.join(parts)}])", "block")
    return str(sketch.one_of(f"{model}({x})", f"{model}({model}({x}))"))


def scaled(sketch: Sketch) -> str:
    x = sketch.map()
    width = sketch.channels(x)
    scales = [sketch.one_of(0.0, 0.3, 1.0, -2.1) for _ in range(width)]
    axes = list(range(1, sketch.rank + sketch.one_of(1, 2)))
    layers = (
        f"Rescaling({scales}, {scales[::-1]})",
        f"Rescaling({sketch.one_of(0.3, 1.7)}, {sketch.one_of(0.0, 0.1)})",
        f"GroupNormalization({width}, center={sketch.one_of(True, False)})",
        f"PReLU(shared_axes={axes})",
        f"Normalization(mean={scales}, variance={[1.5] * width})",
    )
    return f"L.{sketch.one_of(*layers)}({x})"


def picked(sketch: Sketch) -> str:
    """Some channels, or some positions."""
    x = sketch.map()
    width = sketch.channels(x)
    numbers = [sketch.one_of(*range(-width, width)) for _ in range(sketch.one_of(1, 3))]
    cut = sketch.one_of(*range(1, max(width, 2)))
    forms = [f"ops.take({x}, {numbers}, axis=-1)", f"{x}[..., ::-1]", f"{x}[:, ::2]"]
    if width > 1:
        forms += [f"{x}[..., :{cut}]", f"{x}[..., {cut}:]"]
        split = sketch.add(f"ops.split({x}, [{cut}], axis=-1)", "parts")
        forms += [f"ops.concatenate({split}[::-1], axis=-1)", f"ops.relu({split}[1])"] * 2
    return str(sketch.one_of(*forms))


def reduced(sketch: Sketch) -> str:
    """Sums and deviations over positions, added to what they are made of."""
    x = sketch.map()
    kind = sketch.one_of("mean", "max", "min", "sum", "var", "std")
    return f"{x} + ops.{kind}({x}, axis={sketch.one_of(1, -2)}, keepdims=True)"


def dense(sketch: Sketch) -> str:
    return f"L.Dense({sketch.one_of(2, 3, 4)}, {sketch.one_of(None, 'relu')!r})({sketch.map()})"


def rearranged(sketch: Sketch) -> str:
    x = sketch.map()
    shape = sketch.shapes[x]
    swapped = (2, 1, *range(3, len(shape) + 1)) if sketch.rank > 1 else (1, 2)
    forms = [f"L.Permute({swapped})({x})", f"L.Reshape({(*shape[:-1], shape[-1])})({x})"]
    forms += [f"ops.swapaxes({x}, 1, -2)", f"ops.flip({x}, 1)", f"ops.repeat({x}, 2, axis=1)"]
    forms += [f"ops.roll({x}, 1, axis=1)", f"ops.transpose({x}, {(0, *swapped)})"]
    forms += [f"ops.squeeze(ops.expand_dims({x}, 1), 1)"]
    around = ((0, 0), *[(1, sketch.one_of(0, 2))] * sketch.rank, (0, 0))
    mode = sketch.one_of("constant", "symmetric") if min(shape[:-1]) > 1 else "constant"
    forms += [f"ops.pad({x}, {around}, {mode!r})"]
    if shape[-1] % 2 == 0:
        forms += [f"ops.split({x}, 2, axis=-1)[{sketch.one_of(0, 1)}]"]
        forms += [f"L.Reshape({(shape[0] * 2, *shape[1:-1], shape[-1] // 2)})({x})"]
    return str(sketch.one_of(*forms))


def mixing(sketch: Sketch) -> str:
    """Layers that read all channels, and have to keep them."""
    x, rank = sketch.map(), sketch.rank
    width = sketch.channels(x)
    forms = [
        f"ops.matmul({x}, ops.swapaxes({x}, -1, -2))",
        f"ops.einsum('...c,...d->...d', {x}, {x})",
        f"L.EinsumDense('...c,cd->...d', (*{sketch.shapes[x][:-1]}, 3))({x})",
        f"L.Lambda(ops.relu)({x})",
        f"ops.logsumexp({x}, axis=-1, keepdims=True)",
        f"L.SpectralNormalization(L.Conv{rank}D({width}, 2, padding='same'))({x})",
    ]
    if rank == 1:
        if sketch.shapes[x][0] > 1:  # Keras warns of a softmax over one position.
            forms += [f"L.MultiHeadAttention(2, 2)({x}, {x})", f"L.Attention()([{x}, {x}])"]
        forms += [f"L.{kind}(3, return_sequences=True)({x})" for kind in ("LSTM", "GRU")]
        forms += [f"L.TimeDistributed(L.Dense(2))({x})", f"L.Masking()({x})"]
        forms += [f"L.RepeatVector(3)(L.GlobalMaxPooling1D()({x}))"]
    if width > 1:
        forms += [f"ops.log_softmax({x}, axis=-1)", f"ops.normalize({x}, axis=-1)"]
    return str(sketch.one_of(*forms))


def places(sketch: Sketch) -> str:
    """Slices of positions, single positions, and positions that move into the batch."""
    x = sketch.map()
    shape = sketch.shapes[x]
    first, last = sketch.one_of(0, 1, 2), sketch.one_of(1, 2, 3)
    width, rest = shape[-1], ", ".join(map(str, shape[1:]))
    forms = [f"{x}[:, {first}:]", f"{x}[:, -{last}:]", f"{x}[:, :{last}]", f"{x}[:, :-{last}]"]
    forms += [f"{x}[:, {first}:{last + 2}:2]", f"{x}[:, ::-1]", f"{x}[..., -{last}:, :]"]
    forms += [f"{x}[:, -{last}:, ..., :{width}]", f"{x}[:, :{last}, ..., 1:]"]
    forms += [f"{x}[:, {place}, None]" for place in (first, -last)]
    forms += [f"ops.expand_dims({x}[:, {place}], 1)" for place in (first, -last)]
    forms += [f"ops.take({x}, [0, -1], axis=1)", f"ops.split({x}, [{last}], axis=1)[0]"]
    forms += [f"ops.reshape(ops.reshape({x}, (-1, {rest})), (-1, {shape[0]}, {rest}))"]
    forms += [f"ops.reshape({x}, (-1, {shape[0]}, {rest})) * 2.0"]
    forms += [f"L.Reshape((-1, {rest}))({x})", f"L.Reshape(({shape[0]}, *{shape[1:-1]}, -1))({x})"]
    turned = (1, 0, *range(2, len(shape) + 1))
    forms += [f"ops.transpose(ops.transpose({x}, {turned}), {turned})"]
    return str(sketch.one_of(*forms))


def options(sketch: Sketch) -> str:
    """Bare operations with arguments of all kinds; rules know some of them."""
    x, rank = sketch.map(), sketch.rank
    width, axis = sketch.channels(x), sketch.one_of(1, -2, -1, 0)
    kind, number = sketch.one_of("max", "min"), sketch.one_of(-0.5, 0.0, 0.5)
    all_axes = tuple(range(1, rank + sketch.one_of(1, 2)))
    numbers = [sketch.one_of(-0.5, 0.0, 0.5) for _ in range(width)]
    around = ((0, 0), *[(1, sketch.one_of(0, 1))] * rank, (0, sketch.one_of(0, 0, 1)))
    array = f"ops.convert_to_tensor({numbers}, 'float64')"
    forms = [f"{x} + ops.{kind}({x}, {axis}, keepdims=True, initial={number})"]
    forms += [f"{x} + ops.{sketch.one_of('sum', 'mean', 'var', 'max')}({x}, {all_axes}, True)"]
    forms += [f"{x} * ops.{sketch.one_of('mean', 'min')}({x}, {axis}, keepdims=True)"]
    forms += [f"ops.pad({x}, {around}, 'constant', {number})"]
    if min(sketch.shapes[x]) > 1:  # backends cannot reflect a side of one entry
        forms += [f"ops.pad({x}, {around}, 'reflect')"]
    forms += [f"ops.leaky_relu({x}, {number})", f"ops.elu({x}, 0.3)", f"ops.gelu({x}, False)"]
    forms += [
        # No array as the slope of a leaky_relu: TensorFlow refuses it when the network runs.
        f"ops.clip({x}, {array}, 0.7)",
        f"ops.clip({x}, {number}, 0.7)",
    ]
    forms += [f"ops.where({x} > {number}, {x}, -{x})", f"ops.where({x} > 0.0, {x}, {array})"]
    forms += [
        f"ops.{sketch.one_of('roll', 'repeat')}({x}, 2, {axis or None})" if axis else f"{x} + 0"
    ]
    forms += [f"ops.flip({x}, {axis})", f"ops.cumsum({x}, {axis})", f"ops.sort({x}, {axis})"]
    forms += [f"{x} * {array}", f"{x} + {array}", f"ops.maximum({x}, {array})"]
    # Weights that sum to 0 would divide by it.
    weights = f"ops.convert_to_tensor({[abs(n) + 0.5 for n in numbers]}, 'float64')"
    forms += [f"ops.average({x}, axis=-1, weights={weights})[..., None]"]
    forms += [f"ops.round({x} * 100.0, 1)", f"ops.cast(ops.cast({x} * 9.0, 'int32'), 'float64')"]
    return str(sketch.one_of(*forms))


def named_inputs(sketch: Sketch) -> str:
    """A nested model of two inputs, called by name, by order, or with other dtypes and ranks."""
    x, rank = sketch.map(), sketch.rank
    y = sketch.one_of(*sketch.alike(x))
    shape = sketch.shapes[x]
    number = len(sketch.lines)
    names = sketch.one_of(("zeta", "alpha"), ("alpha", "zeta"))
    dtype = sketch.one_of("float64", "float64", "float32")
    inputs = [
        sketch.add(f"keras.Input({shape}, dtype={dtype!r}, name='{n}{number}')", "input")
        for n in names
    ]
    convolution = f"L.Conv{rank}D({shape[-1]}, 2, padding='same')"
    body = f"{convolution}({inputs[0]}) - L.BatchNormalization()({convolution}({inputs[1]}))"
    keys = [f"'{n}{number}'" for n in names]
    structure = sketch.one_of("[{}, {}]", "({}, {})", "{{{2}: {0}, {3}: {1}}}").format(
        *inputs, *keys
    )
    model = sketch.add(f"keras.Model({structure}, {body})", "inner")
    ordered = not structure.startswith("{")  # Keras warns of a list where it expects names
    given = sketch.one_of(
        "{{{3}: {1}, {2}: {0}}}", "[{0}, {1}]" if ordered else "{{{2}: {0}, {3}: {1}}}"
    )
    call = given.format(x, y, *keys)
    training = sketch.one_of("", "", ", training=False", ", training=True")
    again = f" - {model}({call})" if sketch.one_of(True, False) else ""
    return f"{model}({call}{training}){again}"


def ranks(sketch: Sketch) -> str:
    """A nested model whose input has one axis more or less than the tensor that it gets."""
    x, rank = sketch.map(), sketch.rank
    shape = sketch.shapes[x]
    if sketch.one_of(True, False):
        inner = sketch.add(f"keras.Input(({', '.join(map(str, shape))}, 1))", "input")
        model = sketch.add(f"keras.Model({inner}, {inner}[..., 0] * 2.0)", "inner")
        return f"{model}({x})"
    inner = sketch.add(f"keras.Input({shape[:-1]})", "input")
    model = sketch.add(f"keras.Model({inner}, L.Dense(3)({inner}[..., None]))", "inner")
    return f"{model}(L.Conv{rank}D(1, 1)({x}))"


def wrapped(sketch: Sketch) -> str:
    """A layer that is called directly and by wrappers or by nested models."""
    x = sketch.map()
    width, shape = sketch.channels(x), sketch.shapes[x]
    layer = sketch.add(f"L.Dense({width}, {sketch.one_of(None, 'relu')!r})", "layer")
    wrapper = sketch.add(f"L.TimeDistributed({layer})", "layer")
    forms = [f"{layer}({wrapper}({x}))", f"{wrapper}({layer}({x}))"]
    forms += [f"L.TimeDistributed({layer})({wrapper}({x}))"]
    inner = sketch.add(f"keras.Input({shape})", "input")
    model = sketch.add(f"keras.Model({inner}, L.ReLU()({layer}({inner})))", "inner")
    forms += [f"{model}({x}) + {layer}({x})", f"{model}({wrapper}({x}))"]
    other = sketch.add(f"keras.Model({inner}, {layer}({inner}) * 2.0)", "inner")
    forms += [f"{model}({x}) + {other}({x})", f"{other}({model}({x}))"]
    pool = f"L.GlobalAveragePooling{sketch.rank}D()({x})"
    forms += [f"{layer}({x}) + ops.reshape({layer}({pool}), {(-1, *[1] * sketch.rank, width)})"]
    return str(sketch.one_of(*forms))


def given_activation(sketch: Sketch) -> str:
    """Activations that are layers or functions."""
    x, rank = sketch.map(), sketch.rank
    kinds = ("L.ReLU()", "L.LeakyReLU(0.3)", "L.ELU()", "L.Activation('swish')", "L.PReLU()")
    functions = (
        "ops.relu",
        "ops.silu",
        "ops.sin",
        "ops.hard_swish",
        "lambda t: t * ops.sigmoid(t)",
    )
    others = [f"lambda t: t - ops.mean(t, axis={axis}, keepdims=True)" for axis in (-1, 1)]
    mixing = ("ops.softmax", "L.Softmax()", "L.UnitNormalization()", *others)
    chosen = sketch.one_of(*kinds, *functions, *mixing)
    return f"L.Conv{rank}D({sketch.one_of(2, 3, 4)}, 2, padding='same', activation={chosen})({x})"


def arrays(sketch: Sketch) -> str:
    """Initializers that hold as many numbers as the layer has channels."""
    x, rank = sketch.map(), sketch.rank
    numbers = [sketch.one_of(0.5, 1.0) for _ in range(sketch.one_of(3, 4))]
    initializer = f"keras.initializers.Constant({numbers})"
    y = f"L.Conv{rank}D({len(numbers)}, 2, padding='same', bias_initializer={initializer})({x})"
    return f"L.BatchNormalization(beta_initializer={initializer})({y})"


FAMILIES: dict[str, Callable[[Sketch], str]] = {
    "convolution": convolution,
    "convolution again": convolution,
    "depthwise": depthwise,
    "transposed": transposed,
    "normalization": normalization,
    "activation": activation,
    "function": function,
    "pointwise": pointwise,
    "pooling": pooling,
    "resizing": resizing,
    "unchanged": unchanged,
    "merge": merge,
    "merge again": merge,
    "concatenation": concatenation,
    "arithmetic": arithmetic,
    "gate": gate,
    "dense gate": dense_gate,
    "shared": shared,
    "levels": levels,
    "nested": nested,
    "dense": dense,
    "scaled": scaled,
    "picked": picked,
    "reduced": reduced,
    "rearranged": rearranged,
    "mixing": mixing,
    "places": places,
    "options": options,
    "named inputs": named_inputs,
    "ranks": ranks,
    "wrapped": wrapped,
    "given activation": given_activation,
    "arrays": arrays,
}
