"""Public architectures, tiny and without weights: what blocks are proven on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 7
_TEXT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_D_MODEL = {
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
_T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
_T5 |= {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
_IMAGE = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
_IMAGE |= {"intermediate_size": 32}
_STAGES = {"image_size": 64, "embed_dim": 8, "depths": [1, 2, 3], "num_heads": [1, 2, 2], "window_size": 4}
_SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [4, 4],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "vocab_size": 12,
}

SEQUENCE, IMAGE = "SequenceClassification", "ImageClassification"
AUDIO, CTC, CAUSAL, BARE = "AudioClassification", "CTC", "CausalLM", ""
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", SEQUENCE, _TEXT),
    "roberta": ("roberta", SEQUENCE, _TEXT),
    "xlm-roberta": ("xlm-roberta", SEQUENCE, _TEXT),
    "camembert": ("camembert", SEQUENCE, _TEXT),
    "distilbert": (
        "distilbert",
        SEQUENCE,
        {"vocab_size": 60, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32},
    ),
    "albert": ("albert", SEQUENCE, _TEXT | {"embedding_size": 8}),
    "electra": ("electra", SEQUENCE, _TEXT | {"embedding_size": 8}),
    "deberta": ("deberta", SEQUENCE, _TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta-v2": (
        "deberta-v2",
        SEQUENCE,
        _TEXT | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    ),
    "mpnet": ("mpnet", SEQUENCE, _TEXT),
    "modernbert": ("modernbert", SEQUENCE, _TEXT | {"global_attn_every_n_layers": 2}),
    "longformer": ("longformer", SEQUENCE, _TEXT | {"attention_window": 4, "max_position_embeddings": 80}),
    "big_bird": ("big_bird", SEQUENCE, _TEXT | {"attention_type": "original_full"}),
    "funnel": (
        "funnel",
        SEQUENCE,
        {"vocab_size": 60, "block_sizes": [1, 2], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32},
    ),
    "xlnet": ("xlnet", SEQUENCE, {"vocab_size": 60, "d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 32}),
    "xlm": ("xlm", SEQUENCE, {"vocab_size": 60, "emb_dim": 16, "n_layers": 3, "n_heads": 2}),
    "mobilebert": (
        "mobilebert",
        SEQUENCE,
        _TEXT | {"embedding_size": 8, "intra_bottleneck_size": 8, "num_feedforward_networks": 2},
    ),
    "convbert": ("convbert", SEQUENCE, _TEXT | {"embedding_size": 16, "conv_kernel_size": 3}),
    "fnet": ("fnet", SEQUENCE, _TEXT),
    "rembert": ("rembert", SEQUENCE, _TEXT | {"input_embedding_size": 8}),
    "esm": ("esm", SEQUENCE, _TEXT | {"position_embedding_type": "rotary", "mask_token_id": 4}),
    "gpt2": ("gpt2", SEQUENCE, {"vocab_size": 60, "n_embd": 16, "n_layer": 3, "n_head": 2}),
    "gpt_neo": (
        "gpt_neo",
        SEQUENCE,
        {"vocab_size": 60, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]},
    ),
    "gpt_neox": ("gpt_neox", SEQUENCE, _TEXT),
    "gptj": ("gptj", SEQUENCE, {"vocab_size": 60, "n_embd": 16, "n_layer": 3, "n_head": 2, "rotary_dim": 4}),
    "opt": ("opt", SEQUENCE, _TEXT | {"ffn_dim": 32, "word_embed_proj_dim": 8}),
    "bloom": ("bloom", SEQUENCE, {"vocab_size": 60, "hidden_size": 16, "n_layer": 3, "n_head": 2}),
    "llama": ("llama", SEQUENCE, _TEXT),
    "mistral": ("mistral", SEQUENCE, _TEXT),
    "mixtral": ("mixtral", SEQUENCE, _TEXT | {"num_local_experts": 4}),
    "qwen2": ("qwen2", SEQUENCE, _TEXT),
    "qwen3": ("qwen3", SEQUENCE, _TEXT | {"head_dim": 8}),
    "gemma": ("gemma", SEQUENCE, _TEXT | {"head_dim": 8}),
    "gemma2": ("gemma2", SEQUENCE, _TEXT | {"head_dim": 8}),
    "phi": ("phi", SEQUENCE, _TEXT),
    "phi3": ("phi3", SEQUENCE, _TEXT),
    "mamba": (
        "mamba",
        CAUSAL,
        {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "tie_word_embeddings": False},
    ),
    "t5": ("t5", SEQUENCE, _T5),
    "mt5": ("mt5", SEQUENCE, _T5),
    "umt5": ("umt5", SEQUENCE, _T5),
    "bart": ("bart", SEQUENCE, _D_MODEL),
    "mbart": ("mbart", SEQUENCE, _D_MODEL),
    "led": (
        "led",
        BARE,
        _D_MODEL
        | {"attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64},
    ),
    "perceiver": (
        "perceiver",
        SEQUENCE,
        {"vocab_size": 60, "d_model": 16, "d_latents": 24, "num_latents": 4, "num_self_attends_per_block": 3}
        | {"num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 64},
    ),
    "vit": ("vit", IMAGE, _IMAGE),
    "deit": ("deit", IMAGE, _IMAGE),
    "beit": ("beit", IMAGE, _IMAGE | {"use_relative_position_bias": True}),
    "dinov2": ("dinov2", IMAGE, _IMAGE | {"mlp_ratio": 2}),
    "swin": ("swin", IMAGE, _STAGES | {"patch_size": 4}),
    "swinv2": ("swinv2", IMAGE, _STAGES | {"patch_size": 4}),
    "convnext": ("convnext", IMAGE, {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 3, 2], "image_size": 64}),
    "convnextv2": ("convnextv2", IMAGE, {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 3, 2], "image_size": 64}),
    "resnet": ("resnet", IMAGE, {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 3, 2]}),
    "regnet": (
        "regnet",
        IMAGE,
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [2, 2, 2], "groups_width": 4},
    ),
    "segformer": (
        "segformer",
        IMAGE,
        {"depths": [1, 2, 2, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "image_size": 64},
    ),
    "pvt": (
        "pvt",
        IMAGE,
        {"depths": [1, 2, 2, 1], "num_attention_heads": [1, 1, 2, 2], "hidden_sizes": [8, 8, 16, 16], "image_size": 64},
    ),
    "cvt": (
        "cvt",
        IMAGE,
        {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3], "num_channels": 3},
    ),
    "mobilevit": (
        "mobilevit",
        IMAGE,
        {
            "hidden_sizes": [8, 12, 16],
            "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16],
            "image_size": 64,
            "num_attention_heads": 2,
        },
    ),
    "siglip": ("siglip", IMAGE, {"vision_config": _IMAGE, "text_config": _TEXT}),
    "clip-image": ("clip", IMAGE, {"vision_config": _IMAGE | {"projection_dim": 8}, "text_config": _TEXT}),
    "clip": (
        "clip",
        BARE,
        {
            "vision_config": _IMAGE,
            "text_config": _TEXT | {"num_hidden_layers": 2, "eos_token_id": 2},
            "projection_dim": 8,
        },
    ),
    "wav2vec2": ("wav2vec2", AUDIO, _SPEECH),
    "wav2vec2-ctc": ("wav2vec2", CTC, _SPEECH),
    "hubert": ("hubert", AUDIO, _SPEECH),
    "wavlm": ("wavlm", AUDIO, _SPEECH),
    "whisper": (
        "whisper",
        AUDIO,
        _D_MODEL | {"num_mel_bins": 4, "max_source_positions": 16, "classifier_proj_size": 8},
    ),
    "whisper-bare": ("whisper", BARE, _D_MODEL | {"num_mel_bins": 4, "max_source_positions": 16}),
    "ast": (
        "audio-spectrogram-transformer",
        AUDIO,
        _IMAGE | {"num_mel_bins": 16, "max_length": 32, "time_stride": 8, "frequency_stride": 8},
    ),
}

TIMM = [
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "convnext_atto",
    "convnextv2_atto",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "seresnet18",
    "regnetx_002",
    "regnety_002",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "tf_efficientnetv2_b0",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "densenet121",
    "vgg11_bn",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
    "maxvit_pico_rw_256",
    "coatnet_pico_rw_224",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "cait_xxs24_224",
    "pit_ti_224",
    "levit_128s",
    "edgenext_xx_small",
    "nfnet_f0",
    "repvgg_a0",
    "hrnet_w18_small",
    "dla34",
    "xception41",
    "legacy_xception",
    "darknet53",
    "cspresnet50",
    "dpn68",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "efficientvit_b0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_100",
    "hiera_tiny_224",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "mvitv2_tiny",
    "nest_tiny",
    "poolformer_s12",
    "pvt_v2_b0",
    "repvit_m1",
    "res2net50_14w_8s",
    "resnest14d",
    "resnetv2_50",
    "rexnet_100",
    "selecsls42b",
    "sequencer2d_s",
    "skresnet18",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_pcpvt_small",
    "visformer_tiny",
    "volo_d1_224",
    "vovnet39a",
    "xcit_nano_12_p16_224",
    "caformer_s18",
    "convmixer_768_32",
    "crossvit_tiny_240",
    "coat_tiny",
    "davit_tiny",
    "mambaout_femto",
    "starnet_s1",
]


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a model with random weights and inputs for a forward pass."""
    import transformers

    kind, head, options = TRANSFORMERS[name]
    config = transformers.AutoConfig.for_model(kind, **options)
    config.num_labels, config.architectures = CLASSES, []
    if head == SEQUENCE and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    torch.manual_seed(0)
    module = auto.from_config(config).eval()
    return module, inputs(module)


def inputs(module: nn.Module) -> dict[str, Tensor]:
    """Return what the model's forward pass takes."""
    config = module.config
    tokens = torch.full((2, 8), 5)
    tokens[:, -1] = 2  # the end of the text, which some look for
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 64
    values = {
        "input_ids": tokens,
        "decoder_input_ids": tokens,
        "pixel_values": torch.randn(2, 3, size, size),
        "input_values": torch.randn(2, getattr(config, "max_length", 0) or 400),
        "input_features": torch.randn(
            2, getattr(config, "num_mel_bins", 1), 2 * getattr(config, "max_source_positions", 1)
        ),
    }
    main = module.main_input_name
    wanted = [main]
    if config.is_encoder_decoder and not type(module).__name__.endswith("Classification"):
        wanted.append("decoder_input_ids")
    if callable(getattr(module, "get_text_features", None)):
        wanted += ["pixel_values", "input_ids"]
    if config.model_type == "audio-spectrogram-transformer":
        values["input_values"] = torch.randn(2, config.max_length, config.num_mel_bins)
    if config.model_type == "perceiver":
        return {"inputs": tokens}
    return {name: values[name] for name in dict.fromkeys(wanted)}


SMALLEST = {"inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 96}
SMALLEST |= {"efficientformer_l1": 224, "crossvit_tiny_240": 240}
"""Smallest images of the timm models that do not take those of 32 pixels."""
SMALLER = {"vgg11_bn": {"mlp_ratio": 0.1}, "beit_base_patch16_224": {"depth": 2}}
"""Options of the largest timm models that leave less of what repeats itself, or is wide: they had a sixth of all parameters."""


def build_timm(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a model without weights, on the meta device, and inputs for a forward pass."""
    import timm

    with torch.device("meta"):
        module = timm.create_model(name, num_classes=CLASSES).eval()
        return module, {"x": torch.empty(2, *module.pretrained_cfg["input_size"])}


def build_small_timm(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a model with random weights for the smallest images that it takes, and inputs for a forward pass."""
    import timm

    size = SMALLEST.get(name, 32)
    native = timm.get_pretrained_cfg(name)
    assert native is not None
    options = {"img_size": size} if native.fixed_input_size and size != native.input_size[-1] else {}
    options |= SMALLER.get(name, {})
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES, **options), {"x": torch.randn(2, 3, size, size)}
