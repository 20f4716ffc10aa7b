"""Gradient checkpointing: the activations inside of a layer are computed again for its gradients."""

from __future__ import annotations

from typing import Any

from unfreeze_trainer.errors import JobError


def checkpoint_activations(module: Any) -> None:
    """Switch gradient checkpointing on, layer by layer, as the model's own library does it.

    Always the non-reentrant kind: the other one gives no gradients to a layer whose input needs none, and that is the
    lowest one that trains above frozen ones. transformers has the embeddings' output require gradients for that one's
    sake: it is undone, since every frozen layer would be computed again, and backwards, for nothing.

    Parameters
    ----------
    module
        Of transformers or timm, with or without PEFT's wrapper.

    Raises
    ------
    JobError
        The library has none for this model.
    """
    try:
        if hasattr(module, "activation_checkpointing_enable"):
            module.activation_checkpointing_enable({"use_reentrant": False})
            module.disable_input_require_grads()
        else:
            module.set_grad_checkpointing(True)  # timm's default is the non-reentrant kind
    except (AssertionError, AttributeError, NotImplementedError, ValueError) as error:
        why = "" if isinstance(error, AttributeError) else f" ({error})"
        raise JobError(
            "UnsupportedModel",
            f"spec.training.gradientCheckpointing: the library has none for this model{why}. Set it to false; to save"
            " memory otherwise, raise training.gradientAccumulationSteps",
        ) from error
