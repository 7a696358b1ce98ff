"""Tiny networks of the real classes, for trying a generator without a download: `--set model=tiny-sam weights=random`.

They have about a hundred thousand parameters that were never trained, so their masks mean nothing; all code around
them is the code that published checkpoints run through.
"""

from collections.abc import Callable
from typing import Any


def _decoder() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }


def _prompts(image_size: int, patch_size: int) -> dict[str, Any]:
    return {"hidden_size": 32, "image_size": image_size, "patch_size": patch_size, "mask_input_channels": 4}


def _sam() -> Any:
    from transformers import SamConfig

    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "patch_size": 16,
        "num_pos_feats": 16,
        "window_size": 4,
        "global_attn_indexes": [1],
        "initializer_range": 0.2,
        "mlp_dim": 64,
    }
    return SamConfig(
        vision_config=vision,
        prompt_encoder_config=_prompts(128, 16),
        mask_decoder_config=_decoder(),
        initializer_range=0.2,
    )


def _sam2() -> Any:
    from transformers import Sam2Config

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "blocks_per_stage": [1, 1, 2, 1],
        "image_size": [128, 128],
        "window_positional_embedding_background_size": [2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
        "initializer_range": 0.2,
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
        "initializer_range": 0.2,
    }
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config=_prompts(128, 16),
        mask_decoder_config=_decoder(),
        initializer_range=0.2,
    )


def _sam3() -> Any:
    from transformers import Sam3TrackerConfig

    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
        "initializer_range": 0.2,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "initializer_range": 0.2,
    }
    return Sam3TrackerConfig(
        vision_config=vision,
        prompt_encoder_config=_prompts(112, 14),
        mask_decoder_config=_decoder(),
        initializer_range=0.2,
    )


def _swin() -> dict[str, Any]:
    return {
        "model_type": "swin",
        "image_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }


def _mask2former() -> Any:
    from transformers import Mask2FormerConfig

    return Mask2FormerConfig(
        backbone_config=_swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=10,
    )


def _maskformer() -> Any:
    from transformers import MaskFormerConfig

    decoder = {
        "model_type": "detr",
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 10,
    }
    return MaskFormerConfig(backbone_config=_swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32)


TINY: dict[str, Callable[[], Any]] = {
    "tiny-sam": _sam,
    "tiny-sam2": _sam2,
    "tiny-sam3": _sam3,
    "tiny-mask2former": _mask2former,
    "tiny-maskformer": _maskformer,
}

TINY_KINDS = {
    "tiny-sam": "sam",
    "tiny-sam2": "sam2",
    "tiny-sam3": "sam3_tracker",
    "tiny-mask2former": "mask2former",
    "tiny-maskformer": "maskformer",
}
