"""What a job costs: accelerator hours, and money where the platform has a table of prices. Pure."""

from __future__ import annotations

from unfreeze_api.contracts.progress import ProgressInfo
from unfreeze_api.contracts.status import Cost
from unfreeze_operator.observed.context import Context
from unfreeze_operator.settings.prices import price_of

_HOUR = 3600


def cost_of(context: Context, seconds: int | None, progress: ProgressInfo | None) -> Cost | None:
    """Return the cost so far, and in the end as far as a running job knows when that is.

    Money is added up: seconds cost what they do when they are counted, whatever the table says later.

    Parameters
    ----------
    seconds
        Accelerators times seconds, all runs together; None of a job without accelerators.
    progress
        Of a job that runs.
    """
    if seconds is None:
        return None
    old, before = context.status.cost, context.status.accelerator_seconds or 0
    left = _left(progress) if progress is not None else None
    more = None if left is None else left * context.accelerators * context.spec.distribution.num_nodes
    price, currency = price_of(context.spec, context.prices), context.prices.currency
    kept = old.amount if old is not None and old.amount is not None else None
    amount = None
    if kept is not None and (price is None or (old and old.currency != currency)):
        # The table no longer knows it: what was spent stays as it was told.
        return _told(seconds, more, kept, None, old.currency if old else None)
    if price is not None:
        grown = seconds - before if kept is not None else seconds
        amount = round((kept or 0.0) + price * max(0, grown) / _HOUR, 8)
    end = None if amount is None or more is None or price is None else round(amount + price * more / _HOUR, 2)
    return _told(seconds, more, amount, end, currency if amount is not None else None)


def _left(progress: ProgressInfo) -> int | None:
    """Return the seconds that are left to a job; None before its last stage, since each tells of itself alone."""
    number, _, rest = (progress.stage or "").partition(" of ")
    return progress.eta_seconds if number == rest.partition(":")[0] else None


def _told(seconds: int, more: int | None, amount: float | None, end: float | None, currency: str | None) -> Cost:
    hours = round(seconds / _HOUR, 4)
    estimated = None if more is None else round((seconds + more) / _HOUR, 4)
    if amount is not None:
        text = f"{amount:.2f}{'' if end is None else f' of {end:.2f}'} {currency}"
    else:
        text = f"{hours:.2f}{'' if estimated is None else f' of {estimated:.2f}'} h"
    return Cost(
        accelerator_hours=hours,
        estimated_accelerator_hours=estimated,
        amount=amount,
        estimated_amount=end,
        currency=currency,
        text=text,
    )
