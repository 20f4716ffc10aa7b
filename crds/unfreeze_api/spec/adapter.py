"""Adapters: small new weights inside a model, in PEFT's own words.

The usual methods have a member each; its fields are PEFT's, in camelCase. `peft` takes the other methods of PEFT by
PEFT's own names. Bottleneck modules, which PEFT lacks, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.one_of import OneOf, Variant

Modules = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
]
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
            "LoftQ makes up for a base that is rounded, DoRA scales it anew: set useDora to false, or initLoraWeights to"
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
    """Names of the modules that get an update, or all-linear for every linear layer of the backbone."""
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


class AdaLoraSpec(Model):
    """AdaLoRA: LoRA in the form of singular values, the least important of which are taken away while it trains, so that
    ranks go to the modules that need them (Zhang et al. 2023, arXiv 2303.10512).
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.targetR < self.initR",
            "AdaLoRA takes ranks away, from initR to targetR: set targetR below initR, or choose type LoRA for ranks that"
            " stay",
            ".targetR",
        ),
    )

    init_r: int = Field(default=12, ge=2, le=1024)
    """Rank of each module's update at the start."""
    target_r: int = Field(default=8, ge=1, le=1023)
    """Rank that is left in the end, as a mean over the modules; the paper takes two thirds of initR."""
    tinit: int = Field(default=0, ge=0, le=1000000000)
    """Steps of the phase before ranks are taken away."""
    tfinal: int = Field(default=0, ge=0, le=1000000000)
    """Steps at the end of the phase that train what is left. Between tinit and tfinal the ranks fall by a cubic law."""
    deltaT: int = Field(default=1, ge=1, le=1000000)  # noqa: N815 - PEFT's own name
    """Steps from one allocation to the next; in between, ranks that were taken away may come back."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """Share of the old in the running mean of each weight's importance."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """Share of the old in the running mean of its uncertainty."""
    orth_reg_weight: float = Field(default=0.5, ge=0, le=1000)
    """Weight, in the loss, of how far the singular vectors are from orthogonal ones."""
    lora_alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by loraAlpha / initR."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the update, in training."""
    target_modules: Modules = Field(default=["all-linear"])
    """Names of the modules that get an update, or all-linear for every linear layer of the backbone."""


class Ia3Spec(Model):
    """IA3: vectors that scale what modules give or take (Liu et al. 2022, arXiv 2205.05638)."""

    target_modules: Modules = Field(default=["all-linear"])
    """Names of the modules that get a vector, or all-linear for every linear layer of the backbone. The paper has keys,
    values and the second layer of the feed-forward network."""
    feedforward_modules: Modules | None = None
    """Those of targetModules whose input is scaled instead of their output. Default: linear layers that have more
    inputs than outputs, as the second layer of a feed-forward network has."""


class PromptTuningSpec(Model):
    """Prompt tuning: vectors before the text's own embeddings (Lester et al. 2021, arXiv 2104.08691)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.promptTuningInit == 'Text') == has(self.promptTuningInitText)",
            "promptTuningInit Text and promptTuningInitText come together",
            ".promptTuningInit",
        ),
    )

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors stand before the input."""
    prompt_tuning_init: Literal["SampleVocab", "Random", "Text"] = "SampleVocab"
    """What they start from: embeddings of tokens drawn at random, random numbers, or the embeddings of
    promptTuningInitText."""
    prompt_tuning_init_text: str | None = Field(default=None, min_length=1, max_length=1024)
    """Text whose tokens the vectors start from; repeated or cut to numVirtualTokens. Default: none."""


class PrefixTuningSpec(Model):
    """Prefix tuning: vectors before keys and values of every layer (Li and Liang 2021, arXiv 2101.00190)."""

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors in each layer."""
    prefix_projection: bool = False
    """Whether they come out of a two-layer network, which steadies training and is dropped when it is over."""
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=65536)
    """Width of that network. Default: that of the model."""


class PTuningSpec(Model):
    """P-tuning: vectors before the text's own embeddings that come out of a small network (Liu et al. 2021, arXiv
    2103.10385).
    """

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors stand before the input."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The network that makes the vectors."""
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=65536)
    """Its width. Default: that of the model."""


class BottleneckSpec(Model):
    """Bottleneck modules: a narrow network beside a skip connection, on the outputs of a layer's parts."""

    placement: Literal["Pfeiffer", "Houlsby"] = "Pfeiffer"
    """Pfeiffer: on the output of each layer's feed-forward network (Pfeiffer et al. 2020, arXiv 2005.00247). Houlsby: on
    that of the attention too (Houlsby et al. 2019, arXiv 1902.00751). A layer without either (ResNet's) has one on its
    last convolution."""
    reduction_factor: int = Field(default=16, ge=1, le=1024)
    """How many times narrower than the layer the network is."""
    non_linearity: Literal["ReLU", "GELU", "SiLU", "Tanh"] = "ReLU"
    """What stands in its middle."""
    target_modules: Modules | None = None
    """Names of the modules whose outputs are adapted. Default: as placement says."""


PeftMethod = Literal[
    "BEFT",
    "BOFT",
    "C3A",
    "DEFT",
    "DELORA",
    "FOURIERFT",
    "FROD",
    "GRALORA",
    "HIRA",
    "HRA",
    "LOHA",
    "LOKR",
    "MISS",
    "OFT",
    "PEANUT",
    "PSOFT",
    "PVERA",
    "RANDLORA",
    "ROAD",
    "SHIRA",
    "SUPERTUNING",
    "TINYLORA",
    "UNILORA",
    "VBLORA",
    "VERA",
    "WAVEFT",
]


_DEPTH = 8
"""How deep options may be nested; those of PEFT's methods are two deep at most."""


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what no schema bounds: serializers give up on it, or overflow."""
    level: list[Any] = [value]
    for _ in range(_DEPTH):
        level = [part for whole in level for part in (whole.values() if isinstance(whole, dict) else whole)]
        level = [part for part in level if isinstance(part, dict | list)]
    if level:
        raise ValueError(f"nested deeper than {_DEPTH} levels")
    return value


class PeftSpec(Model):
    """Another method of PEFT, by PEFT's own names."""

    method: PeftMethod
    """PEFT's name of the method."""
    config: Annotated[dict[str, Any], AfterValidator(_shallow)] = Field(
        default={}, max_length=64, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """Options by the names that PEFT's configuration class has, like {r: 8, rank_dropout: 0.1}. target_modules is a list
    of names, or [all-linear], the default. PEFT checks them: in `unfreeze phases`, and when the job starts. Default: PEFT's
    own."""


SHARED = ("TINYLORA", "UNILORA", "VBLORA")
"""Methods of PEFT whose layers share parameters."""


@dataclass(frozen=True, slots=True)
class AdapterKind(Variant):
    """A kind of adapter, and what it can do and needs: what it cannot be combined with follows, in spec.py."""

    mergeable: bool = True
    """It can be folded into the base's weights."""
    beside_own_weights: bool = False
    """It can be folded into weights that changed too."""
    before_input: bool = False
    """It stands before the words of a text and changes no module of the model."""


ADAPTERS: tuple[AdapterKind, ...] = (
    AdapterKind("LoRA", "adds low-rank updates to weights", LoraSpec, beside_own_weights=True),
    AdapterKind("AdaLoRA", "gives their ranks to the modules that need them", AdaLoraSpec),
    AdapterKind("IA3", "scales what modules give or take", Ia3Spec, beside_own_weights=True),
    AdapterKind("Bottleneck", "is a narrow network on the outputs of layers", BottleneckSpec, mergeable=False),
    AdapterKind("PromptTuning", "puts vectors before a text", PromptTuningSpec, mergeable=False, before_input=True),
    AdapterKind(
        "PrefixTuning", "before keys and values of each layer", PrefixTuningSpec, mergeable=False, before_input=True
    ),
    AdapterKind("PTuning", "before a text, out of a small network", PTuningSpec, mergeable=False, before_input=True),
    AdapterKind("PEFT", "stands for PEFT's other methods", PeftSpec, needs="peft.method"),
)

UNMERGEABLE = tuple(kind.name for kind in ADAPTERS if not kind.mergeable)
"""Types that cannot be folded into the base's weights."""
PROMPTS = tuple(kind.name for kind in ADAPTERS if kind.before_input)
"""Types that stand before the input and change no module of the model."""
_BESIDE_OWN_WEIGHTS = [kind.name for kind in ADAPTERS if kind.beside_own_weights]


class AdapterSpec(OneOf, kinds=ADAPTERS, noun="adapter"):
    """Small new weights inside the model. Composes with strategy, see baseWeights."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.baseWeights == 'Frozen' || self.type in {_BESIDE_OWN_WEIGHTS}",
            "baseWeights ByStrategy needs an adapter that can be folded into weights that changed too:"
            f" {' or '.join(_BESIDE_OWN_WEIGHTS)}",
            ".baseWeights",
        ),
    )

    base_weights: Literal["Frozen", "ByStrategy"] = "Frozen"
    """Frozen: the model's own weights stay as they are; within the blocks that a phase trains, the adapter trains in
    place of them. ByStrategy: the adapter trains in every block from the first phase on, and beside it the own weights of
    the blocks that the strategy opens: LoRA below and the top blocks whole, or LoRA first, then the top."""

    @property
    def virtual_tokens(self) -> int:
        """How many tokens the adapter puts before each text."""
        count: int = getattr(self.options, "num_virtual_tokens", 0)
        return count
