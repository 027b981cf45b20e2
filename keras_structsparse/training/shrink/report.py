"""The report of a shrinking: one HTML page that opens without a network connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_structsparse.plots import svg
from keras_structsparse.plots.pages import page_template
from keras_structsparse.plots.style import Figure
from keras_structsparse.profiling.summaries import LayerComparison
from keras_structsparse.training.shrink.measured import Row
from keras_structsparse.training.shrink.result import ShrinkResult, best_rate

TEMPLATES = Path(__file__).parent


def page(
    result: ShrinkResult,
    rows: Sequence[Row],
    figure: Figure,
    failed: Sequence[str] = (),
    sizes: Mapping[str, int] = MappingProxyType({}),
    settings: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The page; every text in it is escaped.

    Args:
        result: The result.
        rows: The numbers of both networks.
        figure: The network before and after.
        failed: Why an export was not possible.
        sizes: The sizes of the files in bytes, by name.
        settings: What else the page says, by name.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return str(
        template().render(
            title=f"{result.model.name}, shrunk",
            rows=rows,
            figure=svg(figure),
            warnings=[*result.warnings, *failed],
            verification=result.verification and str(result.verification),
            layers=[_layer(layer) for layer in result.comparison.layers],
            left_out=result.comparison.left_out,
            epochs=list(_epochs(result.history)),
            classes=result.classes,
            sizes=[(name, f"{size:,}") for name, size in sizes.items()],
            settings=settings,
            rates=list(_rates(result)),
        )
    )


def template() -> Any:
    """The template of the page.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return page_template(TEMPLATES)


def _layer(layer: LayerComparison) -> list[str]:
    """The cells of a layer; one that was split has several sizes."""
    sizes = [layer.size[0]], list(layer.parts) or [layer.size[1]]
    kernels = [
        f"{count} of {', '.join('×'.join(map(str, size)) for size in own)}"
        if any(own)
        else str(count)
        for count, own in zip(layer.kernels, sizes, strict=True)
    ]
    counts = [f"{count:,}" for count in (*layer.multiply_adds, *layer.params)]
    return [layer.name, layer.kind, *kernels, *counts]


def _rates(result: ShrinkResult) -> Iterator[list[str]]:
    """The rows of the table of learning rates, headings first."""
    if not result.rates:
        return
    names = list(best_rate(result.rates).metrics)
    yield ["learning rate", *names]
    for each in result.rates:
        cells = (f"{each.metrics[n]:.4g}" if n in each.metrics else "diverged" for n in names)
        yield [f"{each.rate:.2g}", *cells]


def _epochs(history: Mapping[str, Any]) -> Iterator[list[str]]:
    """The rows of the table of epochs, headings first; the share is known in the first stage."""
    if not history:
        return
    yield ["epoch", *history]
    for epoch in range(max(len(values) for values in history.values())):
        cells = [f"{v[epoch]:.4g}" if epoch < len(v) else "" for v in history.values()]
        yield [str(epoch + 1), *cells]
