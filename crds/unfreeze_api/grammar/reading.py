"""What another version wrote, and this one reads: words that it does not know yet get a meaning.

Fields that are not known are ignored (`Model.read`). A word of a fixed choice is another matter: refusing it would make a
whole message unreadable for one new word. Where a model is built here, both stay strict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

_MAX_CAUSES = 5

READING = "reading"
"""Context of a validation that reads what another program wrote."""


def otherwise(meaning: Callable[[Mapping[str, Any]], str | None]) -> WrapValidator:
    """Return what makes a choice readable that later versions add words to.

    Parameters
    ----------
    meaning
        Gives the word to take in place of one that is not known, from the fields that stand before it.
    """

    def read(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError:
            if info.context is READING and isinstance(value, str):
                return meaning(info.data)
            raise

    return WrapValidator(read)


def _known_entries(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        strange = {
            item["loc"][0] for item in error.errors() if item["type"] == "literal_error" and len(item["loc"]) > 1
        }
        if info.context is not READING or not strange:
            raise
        return handler([entry for index, entry in enumerate(value) if index not in strange])


KNOWN_ENTRIES = WrapValidator(_known_entries)
"""Makes a list readable that later versions add kinds of entries to: those with a word that is not known are left out."""


def causes(error: ValidationError, parent: str = "") -> str:
    """Return the first things that are wrong, each with the path of its field below `parent`."""
    found = error.errors()
    listed = [": ".join(filter(None, (field_path(item["loc"], parent), item["msg"]))) for item in found[:_MAX_CAUSES]]
    return "; ".join([*listed, f"and {len(found) - _MAX_CAUSES} more"] if len(found) > _MAX_CAUSES else listed)


def field_path(loc: tuple[int | str, ...], parent: str = "") -> str:
    """Return where a field is, like `training.epochs`."""
    return ".".join(str(part) for part in ((parent, *loc) if parent else loc))
