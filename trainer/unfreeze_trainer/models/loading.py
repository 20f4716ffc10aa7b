"""How a classifier of transformers is loaded, whatever it reads: quietly, with its outputs named, its new head drawn from a seed."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.models.blocks import EMBEDDINGS, find_blocks
from unfreeze_trainer.models.heads import transformers_head
from unfreeze_trainer.models.own_type import Part, file_types, half_of, hold, placeholders, wanted

_NAMED = re.compile(r"GLOBAL ([\w.]+)|Unsupported globals: ([\w.]+)")
"""What a pickle would call, in the words of torch or timm."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw everything random within from `seed`, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def open_config(path: str, where: str, *, use: str = "loaded") -> Any:
    """Return transformers' configuration of a folder.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    use
        What cannot be done with the model where there is none.

    Raises
    ------
    JobError
        InvalidModel: it cannot be read.
    """
    from transformers.models.auto.configuration_auto import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be {use}", error, path) from error


def name_outputs(config: Any, labels: Sequence[str], problem_type: str) -> bool:
    """Write into a model's config what each output stands for; return whether it had the same outputs before."""
    before = config.id2label or {}  # some have none (PVT)
    same = [before[i] for i in sorted(before)] == list(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = problem_type
    return same


def from_folder(loader: Any, path: str, config: Any, *, own: Part | None = None) -> tuple[Any, set[str]]:
    """Return a folder's model, and the names of the parameters that its files lack or have in another shape.

    It is in float32, but for the large weights of a part, `own`, which keep the type of their file where that is wanted
    (`own_type.own_types`).
    """
    types = file_types(path) if own and wanted() else {}
    keeps = own if half_of(types) else None
    with placeholders(types, keeps, transformers_head) if keeps else nullcontext():
        module, info = loader.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if keeps:
        hold(module)
    mismatched = (key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"])
    return module, {*info["missing_keys"], *mismatched}


def load_classifier(
    loader: Any,
    path: str,
    where: str,
    config: Any,
    labels: Sequence[str],
    *,
    random: bool,
    seed: int,
    problem_type: str,
) -> tuple[Any, frozenset[str], set[str]]:
    """Load a classifier in float32 and give it a head for these labels.

    The head is new, drawn from `seed`, unless the checkpoint is a classifier for exactly these labels: then training
    continues.

    Parameters
    ----------
    loader
        transformers' class that chooses the architecture's classifier.
    path, where
        The folder, and what messages start with.
    config
        Of the folder; its outputs are named.
    labels
        In the order of class ids.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.
    problem_type
        What the labels are to each other, in transformers' words.

    Returns
    -------
    tuple
        The model, its head's parameters, and those that its files lack.
    """
    keep = name_outputs(config, labels, problem_type)
    return load_headed(loader, path, where, config, keep=keep, random=random, seed=seed)


def load_headed(
    loader: Any, path: str, where: str, config: Any, *, keep: bool, random: bool, seed: int
) -> tuple[Any, frozenset[str], set[str]]:
    """Load a model in float32, with its head as the files have it if that is to be kept, else drawn anew. The rest is as of `load_classifier`."""
    fresh: set[str] = set()
    try:
        with seeded(seed):
            if random:
                module = loader.from_config(config, dtype=torch.float32, trust_remote_code=False)
            else:
                module, fresh = from_folder(loader, path, config)
                if not keep:
                    initialize(module, transformers_head(module) - fresh)
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    return module, transformers_head(module), fresh


def initialize(module: Any, names: Collection[str]) -> None:
    """Draw parameters as the model's class does."""
    for path, part in module.named_modules():
        own = [parameter for name, parameter in part.named_parameters(prefix=path, recurse=False) if name in names]
        if own:
            for parameter in own:
                parameter._is_hf_initialized = False  # noqa: SLF001 - the mark by which transformers spares loaded weights
            module._init_weights(part)  # noqa: SLF001 - how every transformers model draws new weights


def check_complete(
    module: nn.Module, head: frozenset[str], fresh: Collection[str], where: str, *, others: Collection[str] = ()
) -> None:
    """Refuse weights that do not fit the config: transformers and timm draw what is missing at random and continue.

    Parameters
    ----------
    module, head
        The bare model, and the parameters of its head.
    fresh
        Names of what the weights lack, or have in another shape.
    where
        What messages start with.
    others
        Names of the weights' that the model has not.

    Raises
    ------
    JobError
        InvalidModel: they lack something of the embeddings or the layers.
    """
    instead = f"; instead they have {', '.join(sorted(others)[:3])}" if others else ""
    for block in find_blocks(module, head):
        lost = [name for name in block.parameters if name in fresh]
        if lost and (block.name == EMBEDDINGS or block.is_layer):
            raise JobError(
                "InvalidModel",
                f"{where}: the weights lack {', '.join(lost[:3])} ({len(lost)} parameters of {block.name}), or have"
                f" them in another shape than config.json says{instead}: config.json and weights are of different models",
            )


def keep_fixed(module: Any) -> None:
    """Make buffers of the parameters that a class of transformers exempts from training, which its from_pretrained forgets."""
    with torch.device("meta"):
        skeleton = type(module)(module.config)
    for name, parameter in skeleton.named_parameters():
        if not parameter.requires_grad:
            path, _, own = name.rpartition(".")
            part = module.get_submodule(path)
            weight = getattr(part, own)
            delattr(part, own)
            part.register_buffer(own, weight.detach())


def be_quiet() -> None:
    """Switch off transformers' progress bars and its report of missing keys: a new head is what is asked for."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def not_wrapped() -> Iterator[None]:
    """Have save_pretrained take a model for bare: to look for a wrapper of DeepSpeed's it imports that, for a second or two."""
    modeling: Any = sys.modules.get("transformers.modeling_utils")
    if modeling is None:
        yield
        return
    unwrap, modeling.unwrap_model = modeling.unwrap_model, lambda model, **_: model
    try:
        yield
    finally:
        modeling.unwrap_model = unwrap


def failed(what: str, error: Exception, path: str, more: str = "") -> JobError:
    """Return the error of a folder that transformers or timm cannot load."""
    if found := next(
        (cause for cause in (error, error.__cause__, error.__context__) if isinstance(cause, UnpicklingError)), None
    ):
        named = _NAMED.search(f"{found} {error}")
        calls = f" ({named[1] or named[2]})" if named else ""
        return JobError(
            "InvalidModel",
            f"{what}: its weights are a pickle that holds more than tensors{calls}: nothing of it was"
            " run. Choose a model with safetensors, or save the weights as such where you trust them",
        )
    if "trust_remote_code" not in str(error):
        return JobError("InvalidModel", f"{what}: {one_line(error)}{more}")
    code = ", ".join(sorted(file.name for file in Path(path).glob("*.py"))) or "in another repository"
    return JobError(
        "InvalidModel",
        f"{what}: its classes are code of its own (auto_map; {code}), and no code of model folders is run. Name a model whose"
        " classes transformers has itself, or save its weights and tokenizer as such a one",
    )
