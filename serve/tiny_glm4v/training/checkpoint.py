"""The files of a checkpoint around its weights: configurations, processor, chat template."""

import json
import shutil
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GenerationConfig, Glm4vConfig

from . import tokenizer as tok
from .batches import token_id

# One template for the package and for the checkpoint.
TEMPLATE = Path(__file__).parents[3] / "src/langchain_glm4v/server/chat_template.jinja"

_PIXELS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "merge_size": 2,
    "patch_size": 14,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "temporal_patch_size": 2,
}
# The classes and limits of the released model: at most 6,144 visual tokens a picture.
PROCESSOR = {
    "processor_class": "Glm4vProcessor",
    "image_processor": {
        "image_processor_type": "Glm4vImageProcessor",
        "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        **_PIXELS,
    },
    "video_processor": {
        "video_processor_type": "Glm4vVideoProcessor",
        "size": {"shortest_edge": 12544, "longest_edge": 47040000},
        "do_sample_frames": True,
        "fps": 2,
        "max_duration": 300,
        **_PIXELS,
    },
}


def config(tokenizer: Tokenizer) -> Glm4vConfig:
    """GLM-4.1V's architecture at miniature width: about 11 M parameters."""
    token = partial(token_id, tokenizer)
    made = Glm4vConfig(
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # transformers always has these biases; vLLM drops them unless the configuration says so
            "attention_bias": True,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "pad_token_id": token("<|endoftext|>"),
            "eos_token_id": list(tok.eos_ids(tokenizer)),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [8, 4, 4],
            },
        },
        vision_config={
            "depth": 6,
            "hidden_size": 256,
            "num_heads": 4,
            "out_hidden_size": 256,
            "intermediate_size": 768,
            "image_size": 336,
            "patch_size": 14,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
        },
    )
    made.dtype = torch.bfloat16
    made.architectures = ["Glm4vForConditionalGeneration"]
    return made


def save_files(tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything but the weights into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(tokenizer, folder)
    eos = list(tok.eos_ids(tokenizer))
    config(tokenizer).save_pretrained(folder)
    # Greedy by default: the miniature knows one right answer.
    GenerationConfig(
        do_sample=False, eos_token_id=eos, pad_token_id=token_id(tokenizer, "<|endoftext|>")
    ).save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")
    shutil.copy(TEMPLATE, folder / TEMPLATE.name)


def save_weights(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the weights as bfloat16 safetensors."""
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in state.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
