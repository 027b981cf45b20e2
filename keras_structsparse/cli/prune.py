"""The command ``prune``: rebuild a model without its zeros."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse._validation import CONSTANTS
from keras_structsparse.cli import outputs, parsing
from keras_structsparse.cli.generated_options import Fields, Values, with_generated_options
from keras_structsparse.cli.options import (
    JSON,
    KERAS,
    DataDir,
    Force,
    InputShape,
    ModelFile,
    NewModel,
    floating,
    integer,
    one_of,
)
from keras_structsparse.cli.train import TAU
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.errors import ModelError
from keras_structsparse.sweeps.settings import Settings

if TYPE_CHECKING:
    import keras

    from keras_structsparse.regularizers.saliency import Saliency
    from keras_structsparse.surgery.plans import Plan

EXAMPLE = (
    "Example, after that of train:\n\n"
    "structsparse prune trained.keras --out pruned.keras --save-plan plan.json\n\n"
    "structsparse prune trained.keras --multiply-adds 0.5 --data digits \\\n"
    "    --out half.keras"
)

BATCH = 32
"""Images in a batch of a measurement."""


Tau = Annotated[
    float | None,
    floating(f"Norms up to this count as 0; {TAU:g} without --plan.", parsing.nonnegative),
]
MultiplyAdds = Annotated[
    float | None,
    typer.Option(
        parser=parsing.share,
        metavar="SHARE",
        help="Leave this share of the multiply-adds, instead of --tau: the outputs change.",
    ),
]
Params = Annotated[
    float | None,
    typer.Option(
        parser=parsing.share, metavar="SHARE", help="Leave this share of the parameters, likewise."
    ),
]
Measured = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|DIR|FILE.npz",
        help="Data as for train: the groups that the loss needs least go, not the smallest.",
    ),
]
PlanFile = Annotated[
    Path | None, typer.Option(metavar=f"FILE{JSON}", help="A plan, instead of --tau.")
]
NewPlan = Annotated[
    Path | None, typer.Option(metavar=f"FILE{JSON}", help="Where to save the plan.")
]
Constants = Annotated[
    str, one_of(CONSTANTS, "Constants of removed channels; all but exact change the outputs.")
]
CostsFile = Annotated[
    Path | None,
    typer.Option(metavar=f"FILE{JSON}", help="What `structsparse calibrate` measured."),
]
RoundTo = Annotated[
    int,
    integer(
        "Round the widths of layers up to multiples of it, as runtimes compute channels in "
        "blocks: 8 suits most."
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Refuse a result whose outputs differ, in float64; on for --constants exact.",
    ),
]


@with_generated_options
def prune(
    model: ModelFile,
    out: NewModel,
    settings: Annotated[Values, Fields(Settings, only=("realize",))],
    images: Annotated[
        ImageOptions, Fields(ImageOptions, only=("image_size", "preprocess"), panel="Images")
    ],
    tau: Tau = None,
    plan: PlanFile = None,
    multiply_adds: MultiplyAdds = None,
    params: Params = None,
    data: Measured = None,
    data_dir: DataDir = None,
    save_plan: NewPlan = None,
    constants: Constants = "exact",
    costs: CostsFile = None,
    round_to: RoundTo = 1,
    verify: Verify = None,
    shape: InputShape = None,
    force: Force = False,
) -> None:
    """Rebuild a model without the kernels, rings and layers that are zero, or needed least."""
    share: Values = {"multiply_adds": multiply_adds, "params": params}
    _check({"--tau": tau, "--plan": plan, "--multiply-adds": multiply_adds, "--params": params})
    _check_data(data, multiply_adds, params)
    sides = None if shape is None else parsing.input_shape(shape)
    outputs.check_new_file(out, "--out", KERAS, force)
    if save_plan is not None:
        outputs.check_new_file(save_plan, "--save-plan", JSON, force)
    from keras_structsparse import surgery
    from keras_structsparse.cli import files
    from keras_structsparse.profiling import planning
    from keras_structsparse.profiling.profile import compare, profile

    given = None if plan is None else files.read_plan(plan)
    prices = None if costs is None else files.read_costs(costs)
    how: Values = {
        "constants": constants,
        "realize": settings["realize"],
        "costs": prices,
        "round_to": round_to,
    }
    network = files.load_compiled(model) if data is not None else files.load_model(model)
    profile(network, sides)  # Its errors come before the work.
    if given is not None:
        chosen = given
    elif multiply_adds is None and params is None:
        chosen = planning.plan(network, TAU if tau is None else tau, round_to=round_to)
    else:
        found = None if data is None else _saliency(network, model, data, data_dir, images)
        chosen = planning.plan(network, saliency=found, realize=settings["realize"], **share)
    _verified(network, chosen, verify, how)
    pruned = surgery.prune(network, chosen, **how)
    typer.echo(str(compare(network, pruned, input_shape=sides)))
    if save_plan is not None:
        files.save_plan(chosen, save_plan)
    files.save(pruned, out)


def _check_data(data: str | None, *shares: float | None) -> None:
    """Raise unless the data exist, and there is a share that they are for."""
    if data is None:
        return
    if not any(share is not None for share in shares):
        raise typer.BadParameter(
            "expected --multiply-adds or --params beside --data. Received neither"
        )
    outputs.check_data(data, "--data")


def _check(ways: Values) -> None:
    """Raise a usage error if there are several ways to choose what is kept."""
    given = [name for name, value in ways.items() if value is not None]
    if given == ["--tau", "--plan"]:
        raise typer.BadParameter("expected --tau or --plan. Received both")
    if len(given) > 1:
        raise typer.BadParameter(
            f"expected one of {', '.join(ways)}. Received: {' and '.join(given)}"
        )


def _verified(network: keras.Model, plan: Plan, verify: bool | None, how: Values) -> None:
    """Say that the outputs are those of the masked network, or raise."""
    from keras_structsparse.surgery import verification

    if verify is None and how["constants"] != "exact":
        typer.echo(f"not verified: --constants {how['constants']} may change the outputs")
    elif verify is not False:
        result = verification.verify(network, plan, **how)
        if not result.passed:
            raise ModelError(f"{result}. Nothing is written; --no-verify writes it all the same")
        typer.echo(str(result))


def _saliency(
    network: keras.Model, model: Path, data: str, data_dir: Path | None, images: ImageOptions
) -> Saliency:
    """What the loss would lose without groups, measured on the training images."""
    import keras

    from keras_structsparse.cli import files
    from keras_structsparse.data.loading import for_model
    from keras_structsparse.training.heads import image_side, needs_head, ready_to_shrink
    from keras_structsparse.training.measured_saliency import saliency

    found = for_model(data, data_dir, images, BATCH, side=image_side(network))
    needs_head(network, found.classes, "none", f"MODEL {model}")
    ready_to_shrink(network, files.some_images(found.validation), f"MODEL {model}", data)
    keras.utils.set_random_seed(0)
    return saliency(network, found.train, batch_size=BATCH)
