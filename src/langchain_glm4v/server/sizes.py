"""How large a checkpoint is, and what it needs while it runs: arithmetic over its config.json.

The formulas follow vLLM's `Glm4vForConditionalGeneration`; on the miniature they give exactly the
bytes of its weights, and on the released sizes 10.29 billion parameters.
"""

import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_glm4v.errors import ModelNotFoundError
from langchain_glm4v.server.preflight import Checkpoint

DTYPE_BYTES: Mapping[str, int] = {
    "float32": 4,
    "float": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
}
# The sizes of GLM-4.1V-9B-Thinking and -Base, for a checkpoint that is not on this machine yet.
RELEASED_CONFIG: Mapping[str, Any] = {
    "model_type": "glm4v",
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "max_position_embeddings": 65536,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "vocab_size": 151552,
    },
    "vision_config": {
        "attention_bias": False,
        "depth": 24,
        "hidden_size": 1536,
        "image_size": 336,
        "in_channels": 3,
        "intermediate_size": 13696,
        "num_heads": 12,
        "out_hidden_size": 4096,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
# What quantised checkpoints have in their names.
_QUANTIZED_NAME = re.compile(r"awq|gptq|fp8|nvfp4|int[48]|w\d+a\d+|bnb|\dbit", re.IGNORECASE)


@dataclass(frozen=True)
class Sizes:
    """What of a checkpoint decides how much memory it takes.

    Attributes:
        linear: Parameters of the linear layers, which quantisation makes smaller.
        embeddings: Parameters of the vocabulary's two tables, which are never quantised.
        replicated: The other parameters, which every GPU holds whole.
        dtype: Number type of the weights, such as "bfloat16".
        quantization: Method that the checkpoint is quantised by, such as "awq"; None if it is not.
        weights_bytes: The weights as they are stored.
        context: Longest prompt and answer together that the model was made for, in tokens.
        layers: Layers of the language model.
        hidden: Width of the language model.
        inner: Width inside its layers' feed-forward parts.
        vocabulary: Tokens that it knows.
        heads: Attention heads of the language model.
        kv_heads: Its key-value heads.
        head_size: Width of a head.
        vision_heads: Attention heads of the vision encoder.
        vision_hidden: Width of the vision encoder.
        vision_inner: Width inside its layers' feed-forward parts.
        patches_per_token: Patches of a picture that become one token.
        patch_values: Numbers in a patch.
    """

    linear: int
    embeddings: int
    replicated: int
    dtype: str
    quantization: str | None
    weights_bytes: int
    context: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_size: int
    vision_heads: int
    vision_hidden: int
    vision_inner: int
    patches_per_token: int
    patch_values: int

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return self.linear + self.embeddings + self.replicated

    def kv_bytes_per_token(self, tensor_parallel: int, value_bytes: int) -> int:
        """KV cache that a token takes on each GPU: keys and values of every layer.

        For the released sizes in bfloat16 40 KiB on one GPU.
        """
        heads = max(self.kv_heads // tensor_parallel, 1)  # a head is never divided
        return 2 * self.layers * heads * self.head_size * value_bytes

    def divides_by(self, tensor_parallel: int) -> bool:
        """Whether vLLM can divide the model's heads among that many GPUs."""
        return (
            self.heads % tensor_parallel == 0
            and self.vision_heads % tensor_parallel == 0
            and (self.kv_heads % tensor_parallel == 0 or tensor_parallel % self.kv_heads == 0)
        )


def read_sizes(checkpoint: Checkpoint) -> Sizes | None:
    """Sizes of a checkpoint.

    One that is not on this machine is taken to have the released sizes, unless its name says that
    it is quantised: nothing is known then, which is None.

    Raises:
        ModelNotFoundError: Its config.json cannot be read, or lacks a size.
    """
    if not checkpoint.is_local:
        unknown = _QUANTIZED_NAME.search(checkpoint.location)
        return None if unknown else from_config(RELEASED_CONFIG)
    folder = Path(checkpoint.location)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return from_config(config, stored_bytes(folder))
    except (
        *(OSError, KeyError, TypeError, ValueError, AttributeError),
        *(ZeroDivisionError, RecursionError, struct.error),
    ) as error:
        message = (
            f"the sizes of the model in {checkpoint.location!r} cannot be read: {error!r}; "
            "fetch the checkpoint again"
        )
        raise ModelNotFoundError(message) from error


def from_config(config: Mapping[str, Any], weights_bytes: int | None = None) -> Sizes:
    """Sizes that follow from the content of a config.json.

    Args:
        config: The content.
        weights_bytes: Bytes of the weights as they are stored; None computes them.
    """
    text, vision = config["text_config"], config["vision_config"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    layers, head_size = text["num_hidden_layers"], text.get("head_dim") or hidden // heads
    width, out = vision["hidden_size"], vision["out_hidden_size"]
    depth, merge = vision["depth"], vision["spatial_merge_size"]
    patch_values = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2

    projected = (heads + 2 * kv_heads) * head_size
    text_linear = layers * (hidden * projected + heads * head_size * hidden + 3 * hidden * inner)
    text_rest = layers * (projected + 4 * hidden) + hidden
    vision_linear = (
        depth * (4 * width**2 + 3 * width * out)
        # the merger
        + out**2
        + 3 * out * vision["intermediate_size"]
    )
    vision_rest = (
        depth * (2 * width + (4 * width if vision["attention_bias"] else 0))
        + (patch_values + 1) * width
        + (vision["image_size"] // vision["patch_size"]) ** 2 * width
        + 2 * width
        + (width * merge**2 + 1) * out
        + 2 * out
    )
    tables = 1 if config.get("tie_word_embeddings") else 2
    quantized = config.get("quantization_config") or {}
    dtype = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16"
    linear, rest = text_linear + vision_linear, text_rest + vision_rest
    embeddings = tables * text["vocab_size"] * hidden
    if weights_bytes is None:
        value = DTYPE_BYTES[dtype]
        small = text_linear * _bits(quantized, 8 * value) // 8
        weights_bytes = small + (vision_linear + embeddings + rest) * value
    return Sizes(
        linear=linear,
        embeddings=embeddings,
        replicated=rest,
        dtype=dtype,
        quantization=quantized.get("quant_method"),
        weights_bytes=weights_bytes,
        context=text["max_position_embeddings"],
        layers=layers,
        hidden=hidden,
        inner=inner,
        vocabulary=text["vocab_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vision_heads=vision["num_heads"],
        vision_hidden=width,
        vision_inner=out,  # unlike the merger's, which config.json calls intermediate_size
        patches_per_token=merge**2,
        patch_values=patch_values,
    )


def _bits(quantized: Mapping[str, Any], unquantized: int) -> int:
    """Bits that a weight of the language model takes, its part of a group's scales rounded up."""
    if not quantized:
        return unquantized
    bits = int(quantized.get("bits") or quantized.get("w_bit") or 8)
    return bits + 1 if bits < 8 else bits


def stored_bytes(folder: Path) -> int | None:
    """Bytes of the tensors in a folder's safetensors files; None if it has none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    return sum(map(_tensor_bytes, files)) if files else None


def _tensor_bytes(path: Path) -> int:
    """A safetensors file is the length of its header in 8 bytes, the header, and the tensors."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
        tensors = os.fstat(file.fileno()).st_size - 8 - int(header)
    if tensors < 0:
        message = f"{file.name} is cut off, or no safetensors file"
        raise ValueError(message)
    return tensors
