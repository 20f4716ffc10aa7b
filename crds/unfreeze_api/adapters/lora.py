"""Low-rank updates of weights, and what is built on them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind, Modules
from unfreeze_api.grammar.model import Model, Rule

Patterns = Annotated[dict[str, Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=64)]


class LoraSpec(Model):
    """LoRA (Hu et al. 2021, arXiv 2106.09685) and what is built on it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.initLoraWeights in ['PiSSA', 'OLoRA']) || !self.useDora",
            "PiSSA and OLoRA take a part of the weights out of the base, DoRA measures the whole: set useDora to false,"
            " or initLoraWeights to Default",
            ".useDora",
        ),
        Rule(
            "!(self.initLoraWeights in ['PiSSA', 'OLoRA']) || (!has(self.rankPattern) && !has(self.alphaPattern))",
            "with PiSSA and OLoRA every module has the rank r: remove rankPattern and alphaPattern, or set"
            " initLoraWeights to Default",
            ".initLoraWeights",
        ),
        Rule(
            "self.initLoraWeights != 'Orthogonal' || (self.r % 2 == 0"
            " && (!has(self.rankPattern) || self.rankPattern.all(name, self.rankPattern[name] % 2 == 0)))",
            "Orthogonal needs even ranks",
            ".initLoraWeights",
        ),
        Rule(
            "self.initLoraWeights != 'LoftQ' || !self.useDora",
            "LoftQ makes up for a base that is rounded, DoRA rescales it: set useDora to false, or initLoraWeights to"
            " Default",
            ".useDora",
        ),
    )

    r: int = Field(default=16, ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by loraAlpha / r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the update, in training."""
    target_modules: Modules = Field(default=["all-linear"])
    """Names of the modules that get an update, or all-linear for every linear layer of the backbone, in a mixture of experts the
    experts too."""
    use_rslora: bool = False
    """As rsLoRA does it, the update is multiplied by loraAlpha / sqrt(r), so that high ranks learn too (Kalajdzievski 2023, arXiv
    2312.03732)."""
    use_dora: bool = False
    """DoRA: the update turns the weights, a vector of its own scales them; better at low ranks, slower (Liu et al. 2024,
    arXiv 2402.09353)."""
    init_lora_weights: Literal["Default", "Gaussian", "Orthogonal", "PiSSA", "OLoRA", "LoftQ"] = "Default"
    """What the update starts from. Default: one matrix random, the other 0. Gaussian: the random one normal. Orthogonal:
    both in orthogonal spaces (arXiv 2505.20339). PiSSA: the principal singular vectors of the weights, which learn faster
    (Meng et al. 2024, arXiv 2404.02948). OLoRA: their QR decomposition (arXiv 2406.01775). LoftQ: what a
    quantised base has lost by rounding, as far as the rank goes (Li et al. 2023, arXiv 2310.08659)."""
    rank_pattern: Patterns | None = None
    """Ranks of modules by name or regular expression, where they differ from r."""
    alpha_pattern: Patterns | None = None
    """Scales of modules by name or regular expression, where they differ from loraAlpha."""
    loraplus_lr_ratio: float = Field(default=1.0, ge=1, le=1024)
    """LoRA+: the matrix that starts at 0 learns so many times faster; its paper uses 16 (Hayou et al. 2024, arXiv
    2402.12354)."""


ADAPTER = AdapterKind("LoRA", "adds low-rank updates to weights", LoraSpec, beside_own_weights=True, order=0)
