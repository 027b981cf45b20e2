"""The command ``prune``: rebuild a model without its zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse._validation import CONSTANTS
from keras_structsparse.cli import outputs, parsing
from keras_structsparse.cli.generated_options import Fields, Values, with_generated_options
from keras_structsparse.cli.options import (
    JSON,
    KERAS,
    Force,
    InputShape,
    ModelFile,
    NewModel,
    floating,
    integer,
    one_of,
)
from keras_structsparse.cli.train import TAU
from keras_structsparse.errors import ModelError
from keras_structsparse.sweeps.settings import Settings

EXAMPLE = (
    "Example, after that of train:\n\n"
    "structsparse prune trained.keras --out pruned.keras --save-plan plan.json"
)


Tau = Annotated[
    float | None,
    floating(f"Norms up to this count as 0; {TAU:g} without --plan.", parsing.nonnegative),
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
    tau: Tau = None,
    plan: PlanFile = None,
    save_plan: NewPlan = None,
    constants: Constants = "exact",
    costs: CostsFile = None,
    round_to: RoundTo = 1,
    verify: Verify = None,
    shape: InputShape = None,
    force: Force = False,
) -> None:
    """Rebuild a model without the kernels, rings and layers that are zero."""
    if tau is not None and plan is not None:
        raise typer.BadParameter("expected --tau or --plan. Received both")
    sides = None if shape is None else parsing.input_shape(shape)
    outputs.check_new_file(out, "--out", KERAS, force)
    if save_plan is not None:
        outputs.check_new_file(save_plan, "--save-plan", JSON, force)
    from keras_structsparse import surgery
    from keras_structsparse.cli import files
    from keras_structsparse.cli.files import load_model
    from keras_structsparse.profiling.profile import compare, profile
    from keras_structsparse.surgery import plans, verification

    given = None if plan is None else files.read_plan(plan)
    prices = None if costs is None else files.read_costs(costs)
    how = {
        "constants": constants,
        "realize": settings["realize"],
        "costs": prices,
        "round_to": round_to,
    }
    network = load_model(model)
    profile(network, sides)  # Its errors come before the work.
    chosen = given or plans.plan(network, TAU if tau is None else tau, round_to=round_to)
    if verify is None and constants != "exact":
        typer.echo(f"not verified: --constants {constants} may change the outputs")
    elif verify is not False:
        result = verification.verify(network, chosen, **how)
        if not result.passed:
            raise ModelError(f"{result}. Nothing is written; --no-verify writes it all the same")
        typer.echo(str(result))
    pruned = surgery.prune(network, chosen, **how)
    typer.echo(str(compare(network, pruned, input_shape=sides)))
    if save_plan is not None:
        files.save_plan(chosen, save_plan)
    files.save(pruned, out)
