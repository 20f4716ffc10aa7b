"""Classifiers whose head reads a pooling of all tokens, encoders that give the pooling itself, and how exported ones are loaded.

This file is written beside every export of such a model: it needs torch and transformers, nothing of Unfreeze.

    from runpy import run_path
    classify = run_path("FOLDER/pooled.py")["classifier"]("FOLDER")
    print(classify("some text"))

Where sentence-transformers has the pooling too, `SentenceTransformer("FOLDER").encode(texts)` gives the same logits.

An encoder, whose outputs are vectors of texts, with transformers alone:

    pooled = run_path("FOLDER/pooled.py")
    print(pooled["embedder"](pooled["load_encoder"]("FOLDER"), "FOLDER")(["some text", "another text"]))
"""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CONFIG = "pooled_config.json"
POOLING, HEAD, WEIGHTS, NORMALIZE = "1_Pooling", "2_Dense", "model.safetensors", "2_Normalize"
"""Of an export, as sentence-transformers has them."""
ATTENTION, ATTENTION_WEIGHTS = "attention", "attention.safetensors"
"""The one mode that sentence-transformers does not have."""
FLAGS = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
"""Modes as sentence-transformers names them, and their flags in its files, in the order of what they make."""


def pool(hidden: Tensor, mask: Tensor, modes: Sequence[str], scores: Tensor | None = None) -> Tensor:
    """Make one vector of the vectors of a text's tokens, as sentence-transformers' Pooling does.

    Parameters
    ----------
    hidden
        (texts, tokens, width).
    mask
        (texts, tokens): 1 for a token, 0 for padding, on either side.
    modes
        cls (the first token), lasttoken, mean, max, mean_sqrt_len_tokens, weightedmean (later tokens count more) or
        attention; of several the vectors stand one after the other.
    scores
        For attention, (texts, tokens): a token's weight is their softmax (Yang et al. 2016).

    Returns
    -------
    Tensor
        (texts, width * modes).
    """
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    there = mask.bool()
    texts = torch.arange(len(mask), device=mask.device)
    found = []
    for mode in modes:
        if mode == "cls":
            found.append(hidden[texts, there.int().argmax(dim=1)])
        elif mode == "lasttoken":
            found.append(hidden[texts, (there * places).argmax(dim=1)])
        elif mode == "max":
            found.append(hidden.masked_fill(~there[:, :, None], float("-inf")).amax(dim=1))
        elif mode == ATTENTION:
            assert scores is not None
            weights = scores.float().masked_fill(~there, float("-inf")).softmax(dim=1).to(hidden.dtype)
            found.append((hidden * weights[:, :, None]).sum(dim=1))
        else:
            weights = there.to(hidden.dtype)
            if mode == "weightedmean":
                first = there.int().argmax(dim=1, keepdim=True)
                weights = weights * (places - first)
            total = weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
            divisor = total.sqrt() if mode == "mean_sqrt_len_tokens" else total
            found.append((hidden * weights[:, :, None]).sum(dim=1) / divisor)
    return torch.cat(found, dim=-1)


class Pool(nn.Module):
    """`pool` as a module without weights: what computes it is separated from what reads it."""

    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, hidden: Tensor, mask: Tensor, scores: Tensor | None) -> Tensor:
        """Return (texts, width * modes). Parameters as of pool."""
        return pool(hidden, mask, self.modes, scores)


class _Output(dict[str, Any]):
    """What transformers' models return: by name, and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def pooled_class(config: Any, modes: Sequence[str]) -> Any:
    """Return the class of a classifier around the model of a configuration: a transformers class like its own.

    The names of the model's parameters are those of the architecture's own classifier, those of the head are
    `classifier` and, for attention, `attention`.

    Raises
    ------
    ValueError
        The architecture has no part that makes one vector of each token of a text.
    """
    body_class = _body_class(config)
    base: Any = next(parent for parent in body_class.__mro__[1:] if parent.__name__.endswith("PreTrainedModel"))
    # What only the architecture's own classifier reads would stay without gradients.
    options = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(body_class).parameters else {}
    prefix = base.base_model_prefix

    class PooledClassifier(base):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.modes, self.num_labels = list(modes), config.num_labels
            setattr(self, prefix, body_class(config, **options))
            width = _width(config, body_class)
            self.pool, self.dropout = Pool(self.modes), nn.Dropout(_dropout(config))
            if ATTENTION in modes:
                self.attention = nn.Linear(width, 1)
            self.classifier = nn.Linear(width * len(modes), config.num_labels)
            self.post_init()

        def forward(
            self, attention_mask: Tensor | None = None, past_key_values: Any = None, labels: None = None, **inputs: Any
        ) -> _Output:
            del labels
            inputs = {name: value for name, value in inputs.items() if name not in _OUTPUTS}
            if past_key_values is not None:
                inputs["past_key_values"] = past_key_values
            hidden = getattr(self, prefix)(attention_mask=attention_mask, **inputs).last_hidden_state
            if attention_mask is None:
                attention_mask = _mask_of(hidden, inputs.get("input_ids"), self.config.get_text_config())
            mask = attention_mask[:, -hidden.shape[1] :]  # without the keys that a prefix adds
            scores = self.attention(hidden)[:, :, 0] if ATTENTION in modes else None
            pooled = self.pool(hidden, mask, scores)
            return _Output(logits=self.classifier(self.dropout(pooled)))

    PooledClassifier.__name__ = PooledClassifier.__qualname__ = f"Pooled{body_class.__name__}"
    return PooledClassifier


def _body_class(config: Any) -> Any:
    """Return transformers' class that makes one vector of each token of a text. Raises as of pooled_class."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    kind = type(config)
    encoders: Any = MODEL_FOR_TEXT_ENCODING_MAPPING
    if kind not in encoders and (kind not in MODEL_MAPPING or config.is_encoder_decoder):
        raise ValueError(f"transformers has no encoder of texts for {kind.__name__}")
    body_class: Any = encoders[kind] if kind in encoders else MODEL_MAPPING[kind]
    body_class = body_class[0] if isinstance(body_class, tuple) else body_class
    if "input_ids" not in inspect.signature(body_class.forward).parameters:
        raise ValueError(f"{body_class.__name__} reads no texts")
    return body_class


def _width(config: Any, body_class: Any) -> int:
    """Return how wide the vectors of tokens are, by a look at a skeleton: some configurations do not say it (OPT)."""
    try:
        with torch.device("meta"), torch.no_grad():
            tokens = torch.zeros(1, 2, dtype=torch.long)
            return int(body_class(config)(input_ids=tokens).last_hidden_state.shape[-1])
    except Exception as error:  # skeletons have no values to look at
        if width := getattr(config.get_text_config(), "hidden_size", None):
            return int(width)
        raise ValueError(f"{body_class.__name__} gives no vector for each token") from error


def _mask_of(hidden: Tensor, tokens: Tensor | None, config: Any) -> Tensor:
    """Return which tokens are no padding, where a tokenizer does not say it (FNet's): by their ids, if these tell."""
    padding = getattr(config, "pad_token_id", None)
    if tokens is None or padding is None or padding == getattr(config, "eos_token_id", None):
        return hidden.new_ones(hidden.shape[:2], dtype=torch.long)
    return (tokens != padding).long()


_OUTPUTS = ("output_attentions", "output_hidden_states", "return_dict")
"""Arguments of transformers that say what is returned."""


def _dropout(config: Any) -> float:
    """Return the rate before the head, as the architecture's own classifiers have it."""
    names = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "hidden_dropout_prob", "dropout")
    rates = (getattr(config.get_text_config(), name, None) for name in names)
    return next((float(rate) for rate in rates if isinstance(rate, int | float)), 0.0)


def save(model: Any, folder: str) -> None:
    """Write a model so that `load`, and where it has the pooling sentence-transformers too, loads it again.

    The body lies in `folder` as its library writes it, so that nobody takes it for the architecture's own classifier.
    """
    from safetensors.torch import save_file

    root = Path(folder)
    getattr(model, model.base_model_prefix).save_pretrained(folder)
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    describe(folder, model.modes, labels, model.config.problem_type)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    own = {name: tensor for name, tensor in weights.items() if name.startswith(("classifier.", "attention."))}
    linear = {
        f"linear.{name.partition('.')[2]}": own.pop(name) for name in sorted(own) if name.startswith("classifier.")
    }
    dense = {"in_features": model.classifier.in_features, "out_features": model.classifier.out_features, "bias": True}
    _write(root / HEAD, dense | {"activation_function": "torch.nn.modules.linear.Identity"})
    save_file(linear, root / HEAD / WEIGHTS, {"format": "pt"})
    if own:
        save_file(own, root / ATTENTION_WEIGHTS, {"format": "pt"})
        return
    _write_modules(root, model.classifier.in_features // len(model.modes), model.modes, (HEAD, "Dense"))


def _write_modules(root: Path, width: int, modes: Sequence[str], *more: tuple[str, str]) -> None:
    """Write what sentence-transformers builds a model from: encoder, pooling of vectors of a width, and more by folder."""
    flags = {f"pooling_mode_{flag}": mode in modes for mode, flag in FLAGS.items()}
    _write(root / POOLING, {"word_embedding_dimension": width} | flags)
    kinds = (("", "Transformer"), (POOLING, "Pooling"), *more)
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (root / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")


def _write(folder: Path, config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def describe(folder: str, modes: Sequence[str], labels: Sequence[str], problem_type: str | None = None) -> None:
    """Write what `load` and `load_base` build the classifier from."""
    described = {"pooling": list(modes), "labels": list(labels), "problem_type": problem_type}
    (Path(folder) / CONFIG).write_text(json.dumps(described, indent=2) + "\n")


def head_of(folder: str) -> dict[str, Tensor]:
    """Return the weights of an exported head, by the names that they have in the model."""
    from safetensors.torch import load_file

    dense = load_file(Path(folder, HEAD, WEIGHTS))
    head = {f"classifier.{name.partition('.')[2]}": tensor for name, tensor in dense.items()}
    scores = Path(folder, ATTENTION_WEIGHTS)
    return head | (load_file(scores) if scores.is_file() else {})


def load(folder: str, **options: Any) -> Any:
    """Load an exported model; `options` go to from_pretrained."""
    model = load_base(folder, folder, **options)
    model.load_state_dict(head_of(folder), strict=False)
    return model


def load_base(base: str, folder: str, **options: Any) -> Any:
    """Load the base that an exported adapter belongs to, as the classifier that the adapter was trained in.

    Its head is new: the adapter brings the trained one. `options` go to from_pretrained.
    """
    from transformers import AutoConfig

    described = json.loads(Path(folder, CONFIG).read_text())
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    config.id2label = dict(enumerate(described["labels"]))
    config.label2id = {label: index for index, label in enumerate(described["labels"])}
    config.problem_type = described.get("problem_type") or config.problem_type
    options = {"local_files_only": True, "dtype": torch.float32} | options
    options["ignore_mismatched_sizes"] = True  # a base may have a head for other labels
    kind = pooled_class(config, described["pooling"])
    return kind.from_pretrained(base, config=config, trust_remote_code=False, **options).eval()


def classifier(folder: str) -> Any:
    """Load an exported model with its tokenizer as a pipeline of transformers: call it with a text, or a list of them.

    A pair of texts is {"text": "...", "text_pair": "..."}.
    """
    from transformers import AutoTokenizer, TextClassificationPipeline

    class Classifier(TextClassificationPipeline):  # type: ignore[misc]
        def check_model_type(self, _: Any) -> None:
            """Take a class that transformers does not list."""

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return Classifier(model=load(folder), tokenizer=tokenizer, truncation=True)


def encoder_class(config: Any) -> Any:
    """Return transformers' class of an encoder of texts, without what stands on its last layer. Raises as of pooled_class."""
    body_class = _body_class(config)
    if "add_pooling_layer" not in inspect.signature(body_class).parameters:
        return body_class

    class Encoder(body_class):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config, add_pooling_layer=False)

    Encoder.__name__ = Encoder.__qualname__ = body_class.__name__
    return Encoder


def encoder_width(config: Any) -> int:
    """Return how wide the vectors of an encoder's tokens are. Raises as of pooled_class."""
    return _width(config, _body_class(config))


def embed(hidden: Tensor, mask: Tensor, modes: Sequence[str], *, normalize: bool) -> Tensor:
    """Return the vectors of texts, (texts, width * modes), of those of their tokens; parameters as of pool.

    `normalize` says whether each is made as long as 1. Vectors of a prompt before the text do not count.
    """
    pooled = pool(hidden[:, -mask.shape[1] :].float(), mask, modes)
    return nn.functional.normalize(pooled, dim=-1) if normalize else pooled


def save_encoder(model: Any, folder: str, modes: Sequence[str], *, normalize: bool) -> None:
    """Write an encoder so that sentence-transformers and `load_encoder` load it again."""
    model.save_pretrained(folder)
    describe_encoder(folder, modes, normalize=normalize)
    root = Path(folder)
    if normalize:
        _write(root / NORMALIZE, {})
    more = [(NORMALIZE, "Normalize")] if normalize else []
    _write_modules(root, encoder_width(model.config), modes, *more)


def describe_encoder(folder: str, modes: Sequence[str], *, normalize: bool) -> None:
    """Write what `embedder` makes vectors of texts by."""
    (Path(folder) / CONFIG).write_text(json.dumps({"pooling": list(modes), "normalize": normalize}, indent=2) + "\n")


def load_encoder(folder: str, **options: Any) -> Any:
    """Load an exported encoder, or the base that an exported adapter belongs to; `options` go to from_pretrained."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    options = {"local_files_only": True, "dtype": torch.float32} | options
    return encoder_class(config).from_pretrained(folder, config=config, trust_remote_code=False, **options).eval()


def embedder(model: Any, folder: str) -> Callable[[Sequence[str]], Tensor]:
    """Return a function from texts to their vectors, (texts, width).

    Parameters
    ----------
    model
        The encoder, with its adapter if it has one.
    folder
        The export, with its tokenizer.
    """
    from transformers import AutoTokenizer

    described = json.loads(Path(folder, CONFIG).read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    @torch.no_grad()
    def vectors(texts: Sequence[str]) -> Tensor:
        options = {"truncation": True, "padding": True, "return_attention_mask": True, "return_tensors": "pt"}
        inputs = tokenizer(list(texts), **options)
        hidden = model(**inputs).last_hidden_state
        return embed(hidden, inputs["attention_mask"], described["pooling"], normalize=described["normalize"])

    return vectors
