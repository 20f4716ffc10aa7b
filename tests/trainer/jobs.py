"""Small jobs and small models for the tests of the trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec

WORDS = [
    "how",
    "what",
    "who",
    "where",
    "when",
    "which",
    "is",
    "are",
    "the",
    "a",
    "of",
    "in",
    "to",
    "tall",
    "far",
    "many",
    "city",
    "man",
    "year",
    "name",
    "river",
    "war",
]


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the nested values of `change`."""
    out = dict(base)
    for key, value in change.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def make_job(model: Path | str, train: Path | str, /, **change: Any) -> ResolvedJob:
    """Resolve a small job that keeps its checkpoints; `change` are fields of the spec, merged in."""
    spec = {
        "model": {"source": f"file://{model}"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": f"file://{train}"}, "validation": {"fraction": 0.25}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 1, "batchSize": 4, "checkpoint": {"afterSuccess": "Keep"}},
        "output": {"destination": "file:///tmp/run"},
    }
    return resolve("job", "default", FineTuneJobSpec.model_validate(merge(spec, change)), rendezvous_host="localhost")


def write_csv(path: Path, rows: int = 24, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Write a table whose label is told by the first word of the text."""
    lines = [
        f"{WORDS[i % len(labels)]} {WORDS[7 + i % 11]} {WORDS[5 + i % 13]},{labels[i % len(labels)]}"
        for i in range(rows)
    ]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def write_words(path: Path, rows: int = 24, *, most: int = 9) -> Path:
    """Write lists of one to `most` words with tags in IOB2: the first half of WORDS is a span's, whose kind the first tells."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(rows):
        words, tags = [WORDS[n] for n in rng.integers(len(WORDS), size=rng.integers(1, most + 1))], ["O"]
        for place in map(WORDS.index, words):
            inside = f"I-{tags[-1][2:]}" if tags[-1] != "O" else f"B-{'XY'[place % 2]}"
            tags.append(inside if place < len(WORDS) // 2 else "O")
        lines.append(json.dumps({"tokens": words, "tags": tags[1:]}))
    path.write_text("\n".join(lines) + "\n")
    return path


def bert_folder(folder: Path, *, pooler: bool = True, **config: Any) -> Path:
    """Write a tiny BERT with a WordPiece tokenizer, as save_pretrained does; its weights are random."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    options = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32} | config
    torch.manual_seed(0)
    bert = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **options)
    BertModel(bert, add_pooling_layer=pooler).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML: it says nowhere which tokens are the model's."""


def decoder_folder(folder: Path, kind: str = "llama", *, template: str | None = CHAT_TEMPLATE, **config: Any) -> Path:
    """Write a tiny decoder with a byte-level tokenizer, as save_pretrained does; its weights are random."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=letters, show_progress=False)
    trained.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    ends = {"eos_token": special[2], "pad_token": special[0], "extra_special_tokens": special[1:2]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=64, **ends)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2}
    sizes |= {"intermediate_size": 32, "num_key_value_heads": 1} if kind == "llama" else {}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | config)).save_pretrained(folder)
    return folder


def seq2seq_folder(folder: Path, kind: str = "t5", **config: Any) -> Path:
    """Write a tiny encoder-decoder with a byte-level tokenizer, as save_pretrained does; its weights are random.

    Its tokenizer puts around a text what that of its family does: `</s>` after it, and `<s>` before it but for T5's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.models.auto.modeling_auto import AutoModelForSeq2SeqLM

    of_t5 = kind in ("t5", "mt5")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, letters = ["<pad>", "</s>", "<s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=letters, show_progress=False)
    trained.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    around = "$A </s>" if of_t5 else "<s> $A </s>"
    trained.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("</s>", 1), ("<s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, model_max_length=64, eos_token="</s>", pad_token="<pad>", bos_token="<s>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "d_model": 16, "pad_token_id": 0, "eos_token_id": 1}
    if of_t5:
        sizes |= {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
        sizes |= {"decoder_start_token_id": 0, "initializer_factor": 0.1}
    else:
        sizes |= {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in _SIDE.items()}
        sizes |= {"max_position_embeddings": 64, "bos_token_id": 2, "decoder_start_token_id": 1}
    AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **sizes | config)).save_pretrained(folder)
    return folder


_SIDE = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}


def write_sequences(path: Path, rows: int = 24) -> Path:
    """Write sources of some words with targets that have them the other way round, some cut short."""
    lines = []
    for n in range(rows):
        words = [WORDS[(n + place) % 11] for place in range(2 + n % 4)]
        lines.append(json.dumps({"source": " ".join(words), "target": " ".join(words[:: -1 - n % 2])}))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_dialogues(path: Path, rows: int = 24) -> Path:
    """Write dialogues of one or two answers, each told by the question before it."""
    lines = []
    for n in range(rows):
        turns = [(WORDS[(n + turn) % 7], WORDS[7 + (n + turn) % 5]) for turn in range(1 + n % 2)]
        said = [
            {"role": role, "content": text}
            for one, other in turns
            for role, text in (("user", f"{one} is {WORDS[n % 11]}"), ("assistant", f"the {other}"))
        ]
        lines.append(json.dumps({"messages": said}))
    path.write_text("\n".join(lines) + "\n")
    return path


_MIXTURE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
_MIXTURE |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0, "num_experts_per_tok": 2}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 8, "head_dim": 8},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
    "phimoe": {"num_local_experts": 4},
    "jetmoe": {"num_local_experts": 4, "kv_channels": 8},
    "deepseek_v3": {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 8}
    | {"first_k_dense_replace": 1, **_LATENT},
}
"""Tiny mixtures of experts, by transformers' names of their kinds."""


def mixture_folder(folder: Path, kind: str = "mixtral", **config: Any) -> Path:
    """Write a tiny mixture of experts with the tokenizer of the tiny BERT; its weights are random."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModel

    bert_folder(folder)
    torch.manual_seed(0)
    sizes = _MIXTURE | {"vocab_size": 5 + len(WORDS), "eos_token_id": 3, "bos_token_id": 2} | MIXTURES[kind] | config
    AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    return folder


def timm_folder(folder: Path, name: str = "resnet10t", **options: Any) -> Path:
    """Write a timm model with random weights, as timm's hub folders are."""
    import timm
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    save_for_hf(timm.create_model(name, **options), folder, safe_serialization=True)
    return folder


def image_folder(folder: Path, per_label: int = 6, labels: tuple[str, ...] = ("blue", "red"), size: int = 40) -> Path:
    """Write images whose colour tells their label, one sub-folder per label."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(per_label):
            pixels = rng.integers(0, 120, (size, size + 6, 3), dtype=np.uint8)
            pixels[..., number] += 120
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


def audio_folder(folder: Path, per_label: int = 6, labels: tuple[str, ...] = ("high", "low")) -> Path:
    """Write tones whose pitch tells their label, one sub-folder per label: of all formats, rates, channels and lengths."""
    import soundfile

    rng = np.random.default_rng(0)
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(per_label):
            rate, suffix = (16000, 22050, 44100)[i % 3], ("wav", "flac", "ogg", "mp3")[i % 4]
            time = np.arange(int(rate * (0.2 + 0.05 * i))) / rate
            tone = 0.3 * np.sin(2 * np.pi * 1760 / 8**number * time) + 0.01 * rng.standard_normal(len(time))
            soundfile.write(folder / label / f"{i}.{suffix}", np.stack([tone] * (1 + i % 2), 1), rate)
    return folder


_CONVOLUTIONS = {"conv_dim": (8, 8, 8), "conv_kernel": (20, 8, 4), "conv_stride": (10, 8, 4)}
_ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SPEECH = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}


def audio_model(folder: Path, kind: str = "wav2vec2", **config: Any) -> Path:
    """Write a tiny model that reads audio, with its feature extractor, as save_pretrained does; its weights are random."""
    import transformers
    from transformers.models.auto.modeling_auto import AutoModel

    torch.manual_seed(0)
    if kind == "whisper":
        sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 60}
        sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        sizes |= {"max_source_positions": 100, "classifier_proj_size": 8} | config
        transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes)).save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    elif kind == "audio-spectrogram-transformer":
        transformers.ASTModel(
            transformers.ASTConfig(**_ENCODER, **{"max_length": 64, "num_mel_bins": 32} | config)
        ).save_pretrained(folder)
        transformers.ASTFeatureExtractor(num_mel_bins=32).save_pretrained(folder)
    else:
        sizes = _ENCODER if kind == "wav2vec2-bert" else _ENCODER | _CONVOLUTIONS | _SPEECH
        model = AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes | config))
        model.save_pretrained(folder)
        if kind == "wav2vec2-bert":
            transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
        else:
            layer = config.get("feat_extract_norm") == "layer"
            transformers.Wav2Vec2FeatureExtractor(return_attention_mask=layer).save_pretrained(folder)
    return folder


def spelling_folder(
    folder: Path, kind: str = "wav2vec2", *, letters: str | None = None, headed: bool = False, **config: Any
) -> Path:
    """Write a tiny encoder that can spell: with `letters` it has a vocabulary of them, and with `headed` a head for it."""
    import transformers
    from transformers.models.auto.modeling_auto import AutoModelForCTC

    audio_model(folder, kind, **dict.fromkeys(CHANCES, 0.0) | config)
    if letters is None:
        return folder
    known = ["<pad>", "<s>", "</s>", "<unk>", "|", *letters]
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(known)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    if headed:
        options = transformers.AutoConfig.from_pretrained(folder)
        options.vocab_size, options.pad_token_id = len(known), 0
        AutoModelForCTC.from_config(options).save_pretrained(folder)
    return folder


CHANCES = (
    *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"),
    "mask_time_prob",
)
"""Of a speech model: what it draws lots for."""
LANGUAGES = {"<|en|>": "English", "<|es|>": "Spanish"}


def speech_folder(folder: Path, *, languages: bool = False, **config: Any) -> Path:
    """Write a tiny Whisper with its decoder, feature extractor and byte-level tokenizer; its weights are random.

    With `languages` it tells two of them apart, and its files name none.
    """
    import transformers
    from tokenizers import pre_tokenizers

    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *LANGUAGES,
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*letters, "he", "\u0120t", "\u0120the"])}
    merges = [("h", "e"), ("\u0120", "t"), ("\u0120t", "he")]
    tokenizer = transformers.WhisperTokenizer(vocabulary, merges, pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"extra_special_tokens": special[1:]})
    tokenizer.add_tokens(["<|0.00|>"])
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    end, start = ids[special[0]], ids[special[1]]
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    sizes |= {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": len(tokenizer)}
    sizes |= {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    sizes |= {"max_source_positions": 100, "max_target_positions": 64, "num_mel_bins": 8}
    sizes |= {"suppress_tokens": None, "begin_suppress_tokens": None, "init_std": 0.2} | config
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes))
    options = {"is_multilingual": languages, "no_timestamps_token_id": ids["<|notimestamps|>"]}
    if languages:
        tasks = {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}
        options |= {"lang_to_id": {name: ids[name] for name in LANGUAGES}, "task_to_id": tasks}
    places = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    model.generation_config = transformers.GenerationConfig(**places, **options)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    return folder


def write_speech(folder: Path, rows: int = 24, words: Sequence[str] = ("the city", "who", "how far")) -> Path:
    """Write clips of half a second and less, whose pitch tells their text, and a table of both."""
    import soundfile

    folder.mkdir(parents=True)
    lines = []
    for row in range(rows):
        place, rate = row % len(words), (16000, 22050)[row % 2]
        time = np.arange(int(rate * (0.2 + 0.01 * row))) / rate
        tone = 0.3 * np.sin(2 * np.pi * 220 * 3**place * time) + 0.01 * np.random.default_rng(row).standard_normal(
            len(time)
        )
        soundfile.write(folder / f"{row}.wav", tone, rate)
        lines.append(json.dumps({"audio": f"{row}.wav", "text": words[place]}))
    table = folder / "clips.jsonl"
    table.write_text("\n".join(lines) + "\n")
    return table


_PIXELS = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
_PIXELS |= {"intermediate_size": 32}
_STAGES = {"image_size": 32, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}
_SIDES = {"size": {"height": 32, "width": 32}}
_CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
_HEADS = {"num_attention_heads": [1, 1, 2, 2]}
_BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]}
_TOWERS = {"vision_config": _PIXELS, "text_config": _ENCODER}
IMAGE_MODELS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "vit": ("vit", _PIXELS, "ViT", _SIDES),
    "grey": ("vit", _PIXELS | {"num_channels": 1}, "ViT", _SIDES | {"image_mean": [0.3], "image_std": [0.4]}),
    "deit": ("deit", _PIXELS, "DeiT", _SIDES | {"size": {"height": 36, "width": 36}, "crop_size": _SIDES["size"]}),
    "beit": ("beit", _PIXELS, "Beit", _SIDES),
    "dinov2": ("dinov2", _PIXELS | {"mlp_ratio": 2}, "Bit", _CROP),
    "swin": ("swin", _STAGES, "ViT", _SIDES),
    "convnext": (
        "convnext",
        {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
    ),
    "resnet": ("resnet", _BACKBONE, "ConvNext", {"size": {"shortest_edge": 32}}),
    "mobilenet_v2": ("mobilenet_v2", {"depth_multiplier": 0.1, "finegrained_output": False}, "MobileNetV2", _CROP),
    "efficientnet": (
        "efficientnet",
        {"width_coefficient": 0.2, "depth_coefficient": 0.3, "hidden_dim": 256, "image_size": 32},
        "EfficientNet",
        _SIDES,
    ),
    "pvt": ("pvt", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], **_HEADS, "image_size": 32}, "Pvt", _SIDES),
    "clip": ("clip", _TOWERS, "CLIP", _CROP),
    "siglip": ("siglip", _TOWERS, "Siglip", _SIDES),
}
"""Tiny models that read images: transformers' name of the kind, sizes, image processor and its options."""


def image_model(folder: Path, name: str = "vit", **change: Any) -> Path:
    """Write a tiny model of transformers that reads images, with its processor, as save_pretrained does."""
    import transformers
    from transformers.models.auto.modeling_auto import AutoModel

    kind, sizes, processor, options = IMAGE_MODELS[name]
    torch.manual_seed(0)
    AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes | change)).save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**options).save_pretrained(folder)
    return folder


_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DUAL_ENCODERS = ("clip", "siglip")


def dual_encoder_folder(
    folder: Path, kind: str = "clip", *, positions: int = 12, layers: int = 2, **config: Any
) -> Path:
    """Write a tiny CLIP or SigLIP with its processor, as save_pretrained does; its weights are random."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    pad, end, start = ("<pad>", "</s>", "</s>") if kind == "siglip" else ("<|end|>", "<|end|>", "<|start|>")
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys([pad, start, end, "<unk>", *WORDS]))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    around = "$A </s>" if kind == "siglip" else "<|start|> $A <|end|>"
    used = [(token, vocabulary[token]) for token in dict.fromkeys((start, end))]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=used)
    ends = {"pad_token": pad, "eos_token": end, "bos_token": start, "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=positions, **ends)
    text = _TOWER | {"vocab_size": len(vocabulary), "max_position_embeddings": positions, "num_hidden_layers": layers}
    text |= {"eos_token_id": vocabulary[end], "bos_token_id": vocabulary[start], "pad_token_id": vocabulary[pad]}
    sees = _TOWER | {"image_size": 32, "patch_size": 16}
    if kind == "clip":
        text, sees = text | {"projection_dim": 8}, sees | {"projection_dim": 8}
        config = {"projection_dim": 8} | config
    torch.manual_seed(0)
    made_of = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=sees, **config)
    transformers.AutoModel.from_config(made_of).save_pretrained(folder)
    sized: dict[str, Any] = {"size": {"height": 32, "width": 32}}
    if kind == "clip":
        sized = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    pictures = getattr(transformers, f"{'CLIP' if kind == 'clip' else 'Siglip'}ImageProcessor")(**sized)
    PROCESSOR_MAPPING[type(made_of)](image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder
