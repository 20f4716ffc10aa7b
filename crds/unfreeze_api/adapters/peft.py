"""PEFT's other methods, by PEFT's own names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.grammar.model import Model

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


ADAPTER = AdapterKind(
    "PEFT",
    "stands for PEFT's other methods",
    PeftSpec,
    needs="peft.method",
    reads_base="reads the base's weights as they are",
    order=2,
)
