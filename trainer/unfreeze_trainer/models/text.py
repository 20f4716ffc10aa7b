"""Text classifiers from transformers folders: a pretrained body and a new head."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.models.folders import listing
from unfreeze_trainer.models.heads import transformers_head
from unfreeze_trainer.models.loading import (
    be_quiet,
    check_complete,
    failed,
    from_folder,
    initialize,
    name_outputs,
    open_config,
    seeded,
)
from unfreeze_trainer.models.output_layer import Scale, output_layer, rescale
from unfreeze_trainer.models.pooling import pooled_class, trained_head


def load_tokenizer(path: str, where: str) -> Any:
    """Return the folder's tokenizer; one without a padding token pads with its end-of-text token.

    The library decides what a tokenizer is: some have no file at all (ByT5, CANINE). Where a file is missing that others
    need, transformers 5 makes a tokenizer of special tokens alone, to which every word is unknown: that is refused.
    """
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    be_quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer has its own errors, and none of them goes away on a retry
        raise failed(f"{where}: the tokenizer cannot be loaded", error, path, f"; {listing(path)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        files = ", ".join(dict.fromkeys(type(tokenizer).vocab_files_names.values()))
        raise JobError(
            "InvalidModel",
            f"{where}: no tokenizer: {type(tokenizer).__name__} needs one of {files}; {listing(path)}. Copy the"
            " tokenizer's files there, as save_pretrained writes them",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise JobError(
            "InvalidModel", f"{where}: the tokenizer has neither a padding nor an end-of-text token; add one"
        )
    return tokenizer


@dataclass(frozen=True)
class Limits:
    """What a text model takes."""

    positions: int | None
    """Tokens of a text, special ones included; None where nothing in the model limits them."""
    rows: int | None
    """Token ids that it has embeddings for: those below; None where it has no table of them."""
    padding: int | None = None
    """Id of the padding that its positions are counted from, in families that do so."""
    segments: int = 0
    """Parts of a text, by segment ids, that it tells apart; 0 where it takes no such ids."""
    from_start: bool = False
    """Whether it has a table of positions that count from the start of a row, padding before a text among them."""


def require_embedding(token: int, what: str, *, rows: int | None, tokenizer: Any, where: str) -> None:
    """Raise JobError InvalidModel for a token that a model has no row for in its embeddings; parameters as of `without_embedding`, None for any number of rows."""
    if rows is not None and token >= rows:
        raise without_embedding(token, what, rows=rows, tokenizer=tokenizer, where=where)


def without_embedding(token: int, what: str, *, rows: int, tokenizer: Any, where: str) -> JobError:
    """Return what to say of a token that a model has no row for in its embeddings.

    Parameters
    ----------
    token, what
        Its id, and what of the job has it.
    rows
        Of the embeddings.
    tokenizer, where
        That made it, and what messages about the model start with.
    """
    return JobError(
        "InvalidModel",
        f"{where}: {what} has the id {token} ({quoted(repr(tokenizer.convert_ids_to_tokens(token)))}), and the model has"
        f" embeddings for {rows} tokens: tokenizer and weights do not belong together. Use the tokenizer that the model was"
        " trained with, or resize the model's embeddings first",
    )


def text_limits(path: str, where: str) -> Limits:
    """Count the rows of a model's embeddings of positions and tokens, on a skeleton without weights.

    Families differ in how many of the rows are positions: those that count from the padding id on (RoBERTa, MPNet, ESM)
    lose the rows up to it, others have an offset (BART, OPT) or say less than they have (YOSO).
    """
    stated = getattr(open_config(path, where, use="built"), "max_position_embeddings", None)
    try:
        try:
            skeleton = _skeleton(path, where, layers=1)
        except Exception:  # noqa: BLE001 - some are built of all their layers alone (Gemma 3n), or count them in another way (ProphetNet)
            skeleton = _skeleton(path, where)
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be built", error, path) from error
    found = [stated] if isinstance(stated, int) and stated > 0 else []
    anchor, table = None, False
    for name, part in skeleton.named_modules():
        weight = getattr(part, "weight", None)
        if name.rpartition(".")[2] in _POSITIONS and isinstance(weight, Tensor):
            padding, table = getattr(part, "padding_idx", None), True
            anchor = padding if anchor is None else anchor
            found.append(len(weight) - (getattr(part, "offset", 0) if padding is None else padding + 1))
    try:
        tokens = skeleton.get_input_embeddings()
    except NotImplementedError:
        tokens = None
    rows = tokens.num_embeddings if isinstance(tokens, nn.Embedding) else None
    return Limits(min(found, default=None), rows, anchor, _segments(skeleton), table and anchor is None)


def _skeleton(path: str, where: str, *, layers: int | None = None) -> Any:
    """Return a folder's model without its weights, with so many layers where its config lets them be set; None for all."""
    from transformers.models.auto.modeling_auto import AutoModel

    config = open_config(path, where, use="built")
    if layers is not None:  # one tells as much as all
        with contextlib.suppress(AttributeError, TypeError):
            config.num_hidden_layers = layers
    with torch.device("meta"):
        return AutoModel.from_config(config, trust_remote_code=False)


def _segments(skeleton: nn.Module) -> int:
    """Return how many segment ids a model takes: the rows of its table, or 2 where it tells them apart in another way."""
    if "token_type_ids" not in inspect.signature(skeleton.forward).parameters:
        return 0
    tables = [part for name, part in skeleton.named_modules() if name.rpartition(".")[2] == "token_type_embeddings"]
    return min((table.num_embeddings for table in tables if isinstance(table, nn.Embedding)), default=2)


def pad_as_the_model(tokenizer: Any, limits: Limits) -> None:
    """Let a tokenizer pad with the token that the model's positions are counted from, if it knows that one.

    Everywhere else the model's configuration follows the tokenizer; here that would shift every position by what the two
    ids differ. A padding token that somebody has added to the tokenizer alone has no row in the model: then the end of a text pads,
    as in a tokenizer without one.
    """
    padding, rows, end = limits.padding, limits.rows, tokenizer.eos_token_id
    if padding is not None and padding != tokenizer.pad_token_id and padding < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    if rows is not None and tokenizer.pad_token_id >= rows and end is not None and end < rows:
        tokenizer.pad_token = tokenizer.eos_token


_POSITIONS = frozenset({"position_embeddings", "char_position_embeddings", "embed_positions", "positions_embed", "wpe"})
"""What transformers calls a table of learned or fixed positions of tokens; not those of boxes and entities."""


def usable_length(wanted: int, tokenizer: Any, limits: Limits, *, prompt: int = 0) -> int:
    """Return how many tokens of a text the model can take beside a prompt of so many, at most `wanted`."""
    if limits.positions is None:
        return min(wanted, int(min(tokenizer.model_max_length, 1 << 30)))
    if limits.positions - prompt < 1:
        raise _no_room(prompt, limits.positions)
    return min(wanted, limits.positions - prompt)


def guessed_length(wanted: int, tokenizer: Any, config: dict[str, Any], *, prompt: int) -> int:
    """Return what runs of the first version take for usable: two positions less where the tokenizer has no limit."""
    limits = [wanted, int(min(tokenizer.model_max_length, 1 << 30))]
    if isinstance(positions := config.get("max_position_embeddings"), int):
        limits.append((positions if tokenizer.model_max_length <= positions else max(1, positions - 2)) - prompt)
    if min(limits) < 1:
        raise _no_room(prompt, positions)
    return min(limits)


def _no_room(prompt: int, positions: int | None) -> JobError:
    return JobError(
        "InvalidAdapter",
        f"spec.adapter: {prompt} virtual tokens leave no room for a text in the model's {positions} positions",
    )


def require_classifier(path: str, where: str, auto: str, field: str) -> None:
    """Raise JobError InvalidModel where transformers has no class of a kind for a folder's architecture, and say what to do.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    auto
        transformers' class that chooses the architecture's.
    field
        Of the manifest that says what another head reads; empty where there is none.
    """
    from transformers.models.auto import modeling_auto

    config = open_config(path, where)
    if type(config) in getattr(modeling_auto, auto)._model_mapping:  # noqa: SLF001 - it names no other
        return
    remedy = (
        f"set {field} to LastToken (decoders) or Mean (encoders), or choose another model"
        if field
        else "choose another model"
    )
    raise JobError(
        "InvalidModel",
        f"{where}: transformers has no {auto.removeprefix('AutoModel')} of the kind {config.model_type!r}: {remedy}",
    )


def load_text_model(
    path: str,
    where: str,
    labels: Sequence[str],
    *,
    tokenizer: Any,
    random: bool,
    seed: int,
    problem_type: str,
    pooling: Sequence[str] | None,
    scale: Scale | None,
    auto: str,
) -> tuple[nn.Module, frozenset[str]]:
    """Load a classifier of transformers in float32 and give it a head for these labels.

    The head is everything outside the base model (see `transformers_head`), and what the base model has but the
    checkpoint lacks (a pooler). It is new, drawn from `seed`, unless the checkpoint is a classifier for exactly these
    labels, in whatever order: then training continues. What pretraining has learned of it stays too: ModernBERT's classifiers begin with the
    layers that stand before its output layer.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    labels
        In the order of class ids; they become the config's id2label.
    tokenizer
        Its ids count: a model that looks for another padding than the tokenizer's reads a text's neighbours, and an
        encoder-decoder that looks for another end of text finds none.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.
    problem_type
        What the labels are to each other, in transformers' words.
    pooling
        Modes of pooled_layers that the head reads; None for what the architecture's own classifier reads.
    scale
        Factor and offset that an export has applied to its outputs: a head that is kept is freed of them.
    auto
        transformers' class that chooses the architecture's classifier.

    Returns
    -------
    tuple
        The model in training mode, and the head's parameters by name.
    """
    from transformers.models.auto import modeling_auto

    be_quiet()
    config = open_config(path, where)
    try:
        pretrained = str((config.architectures or [""])[0]).endswith(_PRETRAINING)
        same_kind = (config.problem_type == "regression") == (scale is not None)
        order = _places(config.id2label or {}, labels) if same_kind and not (pooling or scale) else None
        # A classifier's own head reads something else than a pooling.
        own_head = name_outputs(config, labels, problem_type) and same_kind and not pooling
        config.pad_token_id = tokenizer.pad_token_id
        if config.is_encoder_decoder and tokenizer.eos_token_id is not None:
            config.eos_token_id = tokenizer.eos_token_id
        loader: Any = pooled_class(config, pooling, where) if pooling else getattr(modeling_auto, auto)
        with seeded(seed):
            if random:
                of_config = loader._from_config if pooling else loader.from_config  # noqa: SLF001 - what Auto calls
                module = of_config(config, dtype=torch.float32, **({} if pooling else {"trust_remote_code": False}))
                return module.train(), transformers_head(module)
            module, fresh = from_folder(loader, path, config, own="Body")
            head = transformers_head(module)
            trained = trained_head(path, where, pooling, labels) if pooling and same_kind else {}
            if trained:
                module.load_state_dict(trained, strict=False)
            elif not (own_head or pretrained or (order and _reorder(module, head - fresh, order))):
                initialize(module, head - fresh)
            if scale and (trained or (own_head and not head <= fresh)):
                _to_standard(module, head, scale)
    except JobError:
        raise
    except Exception as error:  # as above
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    check_complete(module, head, fresh, where)
    names = frozenset(name for name, _ in module.named_parameters())
    return module.train(), head | (fresh & names)


_PRETRAINING = ("ForMaskedLM", "ForCausalLM", "ForPreTraining")
"""How classes of transformers end whose weights are those of a base that has learned from texts alone."""


def _places(named: Mapping[int, str], labels: Sequence[str]) -> list[int] | None:
    """Return which output of a checkpoint each label is, None where it is one for other labels."""
    names = [named[index] for index in sorted(named)]
    return [names.index(label) for label in labels] if sorted(names) == sorted({*labels}) else None


@torch.no_grad()
def _reorder(module: nn.Module, head: Collection[str], places: Sequence[int]) -> bool:
    """Put the outputs of a head into another order, whose places in the one that it has are given; return whether it could be done."""
    found = [
        part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and f"{name}.weight" in head and part.out_features == len(places)
    ]
    if not found:
        return False
    for parameter in found[-1].parameters():
        parameter.copy_(parameter[list(places)])
    return True


def _to_standard(module: nn.Module, head: Collection[str], scale: Scale) -> None:
    """Let a head that gives numbers in the units of the data give standardised ones."""
    if name := output_layer(module, head, len(scale[0])):
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        rescale(layer, scale, back=True)
