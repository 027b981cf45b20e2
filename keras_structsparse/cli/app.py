"""The command line ``structsparse``: one model at a time, on files.

Keras takes seconds to import: every command imports what it needs when it runs, so that help and
mistakes in the arguments come at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse._version import __version__
from keras_structsparse.cli import console, recipe, sweep
from keras_structsparse.cli.options import (
    ENDINGS,
    JSON,
    KERAS,
    AnyModel,
    AnyNetwork,
    BatchSize,
    Constants,
    Coupled,
    DataDir,
    DataName,
    Epochs,
    Force,
    Format,
    Groups,
    Kind,
    LearningRate,
    ModelFile,
    Momentum,
    NewModel,
    Norm,
    NormOfGroups,
    Realization,
    Realize,
    Regularizer,
    Reweight,
    Seed,
    Shares,
    ShrinkEvery,
    Steps,
    WeightDecay,
    Weights,
    check_reweight,
    floating,
    input_shape,
    integer,
    nonnegative,
    share,
)

TAU, ALPHA = 1e-3, 1e-3

# Of a penalty that sums multiply-adds.
ALPHA_OF_MULTIPLY_ADDS = 1e-9

app = typer.Typer(
    name="structsparse",
    cls=console.Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app(prog_name="structsparse")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"structsparse {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def structsparse(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            envvar="STRUCTSPARSE_TRACEBACK",
            help="Show where an error comes from.",
        ),
    ] = False,
) -> None:
    """Train a Keras network into a really smaller one with exactly the same outputs.

    Start with `structsparse quickstart`; or train, prune, profile and export on your own.
    """
    # Read when TensorFlow is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


# --- commands ---


@app.command(epilog="Example:\n\nstructsparse quickstart --out quickstart-out --seed 0")
def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the results.")] = Path(
        "quickstart-out"
    ),
    seed: Seed = 0,
) -> None:
    """Find the efficient frontier of a residual network on digits, in three minutes."""
    from keras_structsparse.cli.quickstart import run

    run(out, seed, console.console())


@app.command(epilog="Example:\n\nstructsparse models")
def models(
    references: Annotated[
        bool, typer.Option("--references", help="Published networks to compare with, instead.")
    ] = False,
    pruned: Annotated[
        bool, typer.Option("--pruned", help="Trained networks that come with this, instead.")
    ] = False,
) -> None:
    """List the networks that can be trained by name."""
    if references and pruned:
        raise typer.BadParameter("expected --references or --pruned. Received both")
    from keras_structsparse.cli import models

    if pruned:
        models.list_pruned()
    else:
        models.list_zoo(references)


@app.command(
    epilog="Example:\n\n"
    "structsparse train --model digits-plain --dataset digits \\\n"
    "    --alpha 0.01 --out trained.keras\n\n"
    "structsparse train --model digits-residual --dataset digits \\\n"
    "    --target-multiply-adds 0.4 --out trained.keras\n\n"
    "structsparse train --model digits-residual --dataset digits \\\n"
    "    --alpha 0.01 --shrink-every 4 --save-plan plan.json --out trained.keras"
)
def train(
    model: AnyNetwork,
    dataset: DataName,
    out: NewModel,
    regularizer: Kind = Regularizer.KERNEL_SIZE,
    alpha: Annotated[
        float | None,
        floating(
            f"Weight of the penalty; {ALPHA:g} unless given, {ALPHA_OF_MULTIPLY_ADDS:g} for "
            "multiply-adds.",
            nonnegative,
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target-multiply-adds",
            parser=share,
            metavar="FLOAT",
            help="Steer alpha to end at this share of the multiply-adds, instead of --alpha.",
        ),
    ] = None,
    norm: NormOfGroups = Norm.l2,
    groups: Steps = Groups.half_ring,
    weights: Shares = Weights.uniform,
    reweight: Reweight = 0.0,
    coupled: Coupled = False,
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.1,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 0.0,
    ramp: Annotated[
        float,
        floating("Share of the steps over which alpha rises from 0; not with a target."),
    ] = 0.25,
    shrink_every: ShrinkEvery = 0,
    save_plan: Annotated[
        Path | None,
        typer.Option(
            metavar=f"FILE{JSON}", help="Where to save which of the model's kernels are left."
        ),
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a classifier with a penalty that makes its kernels fewer and smaller."""
    if target is not None and alpha is not None:
        raise typer.BadParameter("expected --alpha or --target-multiply-adds. Received both")
    if target is not None and regularizer is Regularizer.NONE:
        raise typer.BadParameter(
            "expected a --regularizer for --target-multiply-adds to steer. Received: none"
        )
    if shrink_every and (target is not None or regularizer is Regularizer.NONE):
        raise typer.BadParameter(
            "expected a --regularizer and no --target-multiply-adds with --shrink-every. Received "
            + ("--target-multiply-adds" if target is not None else "--regularizer none")
        )
    check_reweight(regularizer, reweight)
    console.check_new_file(out, "--out", KERAS, force)
    if save_plan is not None:
        console.check_new_file(save_plan, "--save-plan", JSON, force)
    from keras_structsparse.data import datasets

    # Before Keras is imported: that files are missing is said at once.
    data = datasets.load(dataset, data_dir, seed=seed)
    from keras_structsparse.cli import models, train
    from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
    from keras_structsparse.training.fit import Recipe, Shrinking
    from keras_structsparse.training.penalty_config import Form

    recipe = Recipe(epochs, batch_size, learning_rate, momentum, ramp, weight_decay)
    if alpha is None:
        of_multiply_adds = regularizer is Regularizer.MULTIPLY_ADDS
        alpha = ALPHA_OF_MULTIPLY_ADDS if of_multiply_adds else ALPHA
    form = Form(regularizer.value, norm.value, groups.value, reweight, weights.value, coupled)
    source = models.source(model)
    network = train.classifier(source, data, f"--model {model}", seed)
    steering = None if target is None else TargetMultiplyAdds(target, TAU)
    shrinking = Shrinking(shrink_every) if shrink_every else None
    network, ancestry = train.fit(network, data, recipe, form, alpha, steering, shrinking)
    plan = train.report(network, ancestry, data, TAU, groups.value)
    if save_plan is not None:
        models.save_plan(plan, save_plan)
    models.save(network, out)


app.command(epilog=recipe.EXAMPLE)(recipe.recipe)
app.command(epilog=sweep.SWEEP_EXAMPLE)(sweep.sweep)
app.command(epilog=sweep.CHOOSE_EXAMPLE)(sweep.choose)
app.command(epilog=sweep.REPORT_EXAMPLE)(sweep.report)


@app.command(
    epilog="Example, after that of train:\n\n"
    "structsparse prune trained.keras --out pruned.keras --save-plan plan.json"
)
def prune(
    model: ModelFile,
    out: NewModel,
    tau: Annotated[
        float | None,
        floating(f"Norms up to this count as 0; {TAU:g} without --plan.", nonnegative),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar=f"FILE{JSON}", help="A plan, instead of --tau.")
    ] = None,
    save_plan: Annotated[
        Path | None, typer.Option(metavar=f"FILE{JSON}", help="Where to save the plan.")
    ] = None,
    constants: Annotated[
        Constants,
        typer.Option(help="Constants of removed channels; all but exact change the outputs."),
    ] = Constants.exact,
    realize: Realization = Realize.auto,
    costs: Annotated[
        Path | None,
        typer.Option(metavar=f"FILE{JSON}", help="What `structsparse calibrate` measured."),
    ] = None,
    round_to: Annotated[
        int,
        integer(
            "Round the widths of layers up to multiples of it, as runtimes compute channels in "
            "blocks: 8 suits most."
        ),
    ] = 1,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Refuse a result whose outputs differ, in float64; on for --constants exact.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Rebuild a model without the kernels, rings and layers that are zero."""
    if tau is not None and plan is not None:
        raise typer.BadParameter("expected --tau or --plan. Received both")
    console.check_new_file(out, "--out", KERAS, force)
    if save_plan is not None:
        console.check_new_file(save_plan, "--save-plan", JSON, force)
    from keras_structsparse.cli import models
    from keras_structsparse.export.formats import load_model
    from keras_structsparse.surgery.plans import plan as read_off

    given = None if plan is None else models.read_plan(plan)
    prices = None if costs is None else models.read_costs(costs)
    network = load_model(model)
    chosen = given or read_off(network, TAU if tau is None else tau, round_to=round_to)
    pruned = models.prune(network, chosen, constants.value, realize.value, verify, prices, round_to)
    if save_plan is not None:
        models.save_plan(chosen, save_plan)
    models.save(pruned, out)


@app.command(epilog="Example:\n\nstructsparse profile fashion-mnist-residual")
def profile(
    model: AnyModel,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape",
            metavar="28,28,1",
            help="Shape of one input, where the model leaves it open.",
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar=f"MODEL{KERAS}|NAME", help="A smaller model beside it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|FILE.svg", help="Draw what --compare compares."),
    ] = None,
) -> None:
    """Count the multiply-adds and weights of every layer."""
    sides = None if shape is None else input_shape(shape)
    if figure is not None and compare is None:
        raise typer.BadParameter("expected --compare with --figure. Received none")
    from keras_structsparse.cli import models

    found = models.costs([name for name in (model, compare) if name is not None], sides)
    if figure is not None:
        models.draw(found, figure)
    typer.echo(found.to_json().rstrip() if json else str(found))
    if figure is not None and not json:
        typer.echo(f"wrote {figure}")


@app.command(
    epilog="Example, after that of prune:\n\nstructsparse export pruned.keras --out saved_model"
)
def export(
    model: ModelFile,
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="A directory, or a .tflite or .onnx file.")
    ],
    format: Annotated[Format, typer.Option(help="What to export to.")] = Format.saved_model,
    fold: Annotated[
        bool,
        typer.Option(help="Fold batch normalisations into convolutions, checked in float64."),
    ] = True,
    force: Force = False,
) -> None:
    """Export a model for use without Keras, and run the export in a process of its own."""
    if format in ENDINGS:
        console.check_new_file(out, "--out", ENDINGS[format], force)
    else:
        console.check_new_directory(out, "--out", force)
    from keras_structsparse.export.formats import load_model
    from keras_structsparse.export.verified import export as write

    typer.echo(str(write(load_model(model), out, format.value, fold=fold)))


@app.command(epilog="Example:\n\nstructsparse calibrate --batch-size 1 --out costs.json")
def calibrate(
    out: Annotated[Path, typer.Option(metavar=f"FILE{JSON}", help="Where to save the costs.")],
    batch_size: Annotated[int, integer("Examples a run: that of the later use.")] = 1,
    repeats: Annotated[int, integer("Runs of each network.")] = 20,
    force: Force = False,
) -> None:
    """Measure what operations cost on this machine, for the choices of surgery."""
    console.check_new_file(out, "--out", JSON, force)
    from keras_structsparse._files import write_text
    from keras_structsparse.profiling.calibration import calibrate as measure

    found = measure(batch_size, repeats)
    typer.echo(str(found))
    write_text(out, found.to_json())
    typer.echo(f"saved {out}")
