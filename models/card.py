"""The card of a pruned network: how it was made, its cost and its accuracy.

A card is a value that is written as JSON and read again; its Markdown is one table. A ModelCard of
huggingface_hub is a text file with a YAML header, and would replace only the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_structsparse._records import check_format, parse_json, read_record
from keras_structsparse._validation import nonnegative_int, positive_int, set_checked
from keras_structsparse.errors import ModelError
from keras_structsparse.export.markdown import escaped

FORMAT = "keras_structsparse.card/1"


@dataclass(frozen=True)
class Card:
    """How a pruned network was made, its cost and its accuracy.

    Attributes:
        base: The network before surgery.
        dataset: The data set that it was trained on.
        input_shape: Shape of one example.
        penalty: The settings of the penalty without its weight.
        alpha: Weight of the penalty.
        tau: Threshold on group norms.
        seed: Seed of the training.
        validation: Accuracy on the validation split, by which the network was chosen.
        accuracy: Accuracy on the test split, which was not used for any choice.
        accuracy_at_surgery: Test accuracy before fine-tuning.
        dense_accuracy: Mean test accuracy of the dense networks of the same sweep.
        multiply_adds: For one example (eq. 10).
        dense_multiply_adds: Those of the base.
        params: Weights.
        dense_params: Those of the base.
        latency_ms: Median milliseconds for one example.
        dense_latency_ms: Those of the base, measured in turns with it.
        machine: What the milliseconds were measured on.
        sha256: Of the ``.keras`` file.
        commands: The commands that made the file; empty if they were not recorded.

    Raises:
        ValueError: A number of multiply-adds or weights is none, or negative.
    """

    base: str
    dataset: str
    input_shape: tuple[int | None, ...]
    penalty: Mapping[str, Any]
    alpha: float
    tau: float
    seed: int
    validation: float
    accuracy: float
    accuracy_at_surgery: float
    dense_accuracy: float
    multiply_adds: int
    dense_multiply_adds: int
    params: int
    dense_params: int
    latency_ms: float
    dense_latency_ms: float
    machine: str
    sha256: str
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("multiply_adds", "params"):
            set_checked(self, **{name: nonnegative_int(name, getattr(self, name))})
        for name in ("dense_multiply_adds", "dense_params"):
            set_checked(self, **{name: positive_int(name, getattr(self, name))})

    @property
    def summary(self) -> str:
        """A description in one line."""
        share = self.multiply_adds / self.dense_multiply_adds
        return (
            f"{self.base} on {self.dataset}: {share:.1%} of the multiply-adds, "
            f"{self.params / self.dense_params:.1%} of the parameters, "
            f"test accuracy {self.accuracy:.2%} (dense {self.dense_accuracy:.2%})"
        )

    def to_json(self) -> str:
        """The card as JSON, with its summary."""
        record = {"format": FORMAT, "summary": self.summary, **asdict(self)}
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card.

        Args:
            text: The result of :meth:`to_json`.

        Returns:
            The card.

        Raises:
            ModelError: The text is not a card.
        """
        try:
            content = parse_json(text)
        except (TypeError, ValueError) as error:
            raise ModelError(f"card: expected a model card as JSON. Received: {error}") from error
        check_format(content, FORMAT, "card", ModelError)
        # What else a card says, such as its summary, is made of the fields.
        known = {field.name for field in fields(cls)}
        record = {name: value for name, value in content.items() if name in known}
        return read_record(cls, record, "card", ModelError)

    def to_markdown(self) -> str:
        """The card as Markdown."""
        share = self.multiply_adds / self.dense_multiply_adds
        rows = {
            "base network": self.base,
            "data set": self.dataset,
            "input": " × ".join(str(side) for side in self.input_shape),
            "penalty": ", ".join(f"{key} {value}" for key, value in self.penalty.items()),
            "alpha": f"{self.alpha:g}",
            "tau": f"{self.tau:g}",
            "seed": self.seed,
            "multiply-adds": f"{self.multiply_adds:,} ({share:.1%} of dense)",
            "parameters": f"{self.params:,} (dense {self.dense_params:,})",
            "validation accuracy": f"{self.validation:.2%}",
            "test accuracy": f"{self.accuracy:.2%} (at surgery {self.accuracy_at_surgery:.2%}, "
            f"dense {self.dense_accuracy:.2%})",
            "milliseconds for one example": f"{self.latency_ms:.2f} "
            f"(dense {self.dense_latency_ms:.2f}) on {self.machine}",
            "SHA-256": self.sha256,
        }
        summary = f"{escaped(self.summary)}."
        lines = ["# Pruned network", "", summary, "", "| | |", "| --- | --- |"]
        lines += [f"| {name} | {escaped(value)} |" for name, value in rows.items()]
        closing = "Chosen by validation accuracy; the test split was only reported on."
        return "\n".join([*lines, "", closing, ""])
