"""The texts that stand below the fields of models, read from the source when somebody wants to see them.

pydantic can read them as it makes a class (use_attribute_docstrings), which took half of the time that importing the models takes,
in every process.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

from unfreeze_api.grammar.model import Model


def field_texts(model: type[Model]) -> dict[str, str]:
    """Return the text of each field of a model that has one, those of its bases too, by wire name."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Model):
            texts |= _texts(inspect.getfile(base)).get(base.__qualname__, {})
    return {str(field.alias or name): texts[name] for name, field in model.model_fields.items() if name in texts}


@cache
def _texts(file: str) -> dict[str, dict[str, str]]:
    """Return the texts of a file's classes by field, by class."""
    nodes = ast.parse(Path(file).read_text(encoding="utf-8")).body
    return {node.name: _of_class(node) for node in nodes if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
