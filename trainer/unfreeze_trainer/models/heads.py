"""The head of a classifier: the parameters that are newly initialized for a task, found from what the libraries say."""

from __future__ import annotations

from typing import Any

from torch import nn


def transformers_head(module: Any) -> frozenset[str]:
    """Return the parameters of a transformers model's head, empty for a model without one.

    It is everything outside the base model. Some classes have no base model of their own: their head is then what comes
    after the part with most weights (CLIPForImageClassification), or the output layer inside it (Perceiver), known by
    having as many outputs as there are labels.
    """
    parameters = dict(module.named_parameters())
    if module.base_model is not module:
        inside = {id(parameter) for parameter in module.base_model.parameters()}
        if outside := frozenset(name for name, parameter in parameters.items() if id(parameter) not in inside):
            return outside
    labels = getattr(module.config, "num_labels", None)
    outputs = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv1d) and part.weight.shape[0] == labels
    ]
    if not outputs:
        return frozenset()
    children = [(name, part) for name, part in module.named_children() if [*part.parameters()]]
    body = max(children, key=lambda child: sum(parameter.numel() for parameter in child[1].parameters()))
    above = tuple(f"{name}." for name, _ in children[children.index(body) + 1 :])
    if any(f"{name}.".startswith(above) for name in outputs):
        return frozenset(name for name in parameters if name.startswith(above))
    return frozenset(name for name in parameters if name.startswith(f"{outputs[-1]}."))


def timm_head(module: Any, classes: int) -> frozenset[str]:
    """Return the parameters of a timm model's head: its classifier, and what else reset_classifier initializes.

    Parameters
    ----------
    module
        Its classifier is reset; give a skeleton on the meta device.
    classes
        Outputs of the new classifier.
    """
    classifiers = module.get_classifier()
    parts = classifiers if isinstance(classifiers, tuple | list) else (classifiers,)
    own = {id(parameter) for part in parts for parameter in part.parameters()}
    before = dict(module.named_parameters())
    module.reset_classifier(classes)
    drawn = {name for name, parameter in module.named_parameters() if before.get(name) is not parameter}
    return frozenset(drawn | {name for name, parameter in before.items() if id(parameter) in own})
