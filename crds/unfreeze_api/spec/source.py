"""Types of the fields that say where something lies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unfreeze_api.grammar.model import schema_rules
from unfreeze_api.sources import rule
from unfreeze_api.sources.base import Held


def _field(held: Held) -> Any:
    return Field(min_length=1, max_length=1024, json_schema_extra=schema_rules(rule(held)))


ModelSource = Annotated[str, _field("Model")]
DataSource = Annotated[str, _field("Data")]
OutputSource = Annotated[str, _field("Output")]
