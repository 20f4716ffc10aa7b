"""What tasks with labels have in common: the options of how labels are read and learned."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule, Since


class LabelOptions(Model):
    """Base of the options of tasks with labels for each sample."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labelSeparator) || (has(self.labels) && self.labels == 'Multi')",
            "labelSeparator stands between several labels of a sample: set labels to Multi, or remove it",
            ".labelSeparator",
        ),
    )

    labels: Annotated[Literal["Single", "Multi"] | None, Since(2)] = None
    """How many labels a sample has. Single: one. Multi: any number, none too; the column holds a list, or a text with
    separators, each label is decided alone, by a sigmoid, and predicted where its probability is above 0.5. Default:
    Single."""
    label_separator: Annotated[str | None, Since(2)] = Field(default=None, min_length=1, max_length=8)
    """What stands between the labels of a text, where labels is Multi; blanks around labels are left out. Default: a
    comma."""
