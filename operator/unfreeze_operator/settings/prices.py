"""What accelerators cost, by the table of the person who runs the operator. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, TypeAdapter, ValidationError

from unfreeze_api.grammar.model import Model
from unfreeze_api.spec.distribution import ACCELERATORS, accelerators_of
from unfreeze_api.spec.job import FineTuneJobSpec


class Price(Model):
    """What an accelerator costs."""

    resource: str
    """As a job's limits name it, like nvidia.com/gpu."""
    node_selector: dict[str, str] = Field(default={}, max_length=16)
    """Labels that a job's template.nodeSelector asks for; none for any job."""
    per_hour: float = Field(ge=0, allow_inf_nan=False)
    """Money for one of them for an hour."""


@dataclass(frozen=True, slots=True)
class Prices:
    """The table, in the order in which it is asked."""

    currency: str = ""
    """In which all of them are; empty without any."""
    table: tuple[Price, ...] = ()


NO_PRICES = Prices()


class _Given(Model):
    currency: str = Field(pattern="^[A-Z]{3}$")
    table: list[Price] = Field(max_length=256)


def parse_prices(text: str) -> Prices:
    """Read a JSON object of currency and table.

    Raises
    ------
    ValueError
        With everything that is wrong, by path.
    """
    try:
        found = TypeAdapter(_Given).validate_json(text)
    except ValidationError as error:
        causes = (f"{'.'.join(map(str, cause['loc'])) or 'value'}: {cause['msg']}" for cause in error.errors())
        raise ValueError("; ".join(causes)) from None
    for index, price in enumerate(found.table):
        if price.resource not in ACCELERATORS:
            raise ValueError(
                f"table.{index}.resource: {price.resource} is no accelerator; there are {', '.join(ACCELERATORS)}"
            )
    return Prices(found.currency, tuple(found.table))


def price_of(spec: FineTuneJobSpec, prices: Prices) -> float | None:
    """Return what one of a job's accelerators costs an hour; None where the table does not say.

    Of a job with several kinds it is their mean in a pod.
    """
    limits = spec.distribution.resources_per_node.limits or {}
    asked = spec.template.node_selector or {}
    counts = {name: count for name, count in accelerators_of(limits).items() if count}
    total = 0.0
    for name, count in counts.items():
        found = (
            price.per_hour
            for price in prices.table
            if price.resource == name and price.node_selector.items() <= asked.items()
        )
        if (each := next(found, None)) is None:
            return None
        total += count * each
    return total / sum(counts.values()) if counts else None
