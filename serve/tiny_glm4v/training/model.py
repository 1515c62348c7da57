"""`Glm4vForConditionalGeneration` rewritten for fast training on batches of equal pictures.

Parameters carry the names and shapes of transformers' class, so a state dict fits both; a test
compares the two. What makes it fast: pictures of one size go through attention together, and
several questions share one pass of the vision tower.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Glm4vConfig
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig, Glm4vVisionConfig

from .batches import CHARS, IGNORED, SHAPES, SLOTS, Batch

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the image processor
STD = (0.26862954, 0.26130258, 0.27577711)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class GatedMlp(nn.Module):
    """SwiGLU with separate gate and up projections, as the vision tower has it."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class VisionAttention(nn.Module):
    def __init__(self, config: Glm4vVisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, length, size = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (
            t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin for t in (q, k)
        )
        seen = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(n, length, size))
        return out


class VisionBlock(nn.Module):
    def __init__(self, config: Glm4vVisionConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = VisionAttention(config)
        self.mlp = GatedMlp(config.hidden_size, config.out_hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Merger(GatedMlp):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__(size, inner)
        self.proj = nn.Linear(size, size, bias=False)
        self.post_projection_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.gelu(self.post_projection_norm(self.proj(x))))


# These two, and `Inner` and `Helper` below, only hold modules under a name.


class VisionEmbeddings(nn.Module):
    def __init__(self, places: int, size: int) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(places, size)


class PatchEmbed(nn.Module):
    def __init__(self, size: int, frames: int, patch: int) -> None:
        super().__init__()
        kernel = (frames, patch, patch)
        self.proj = nn.Conv3d(3, size, kernel, stride=kernel)


class Vision(nn.Module):
    """Pictures (N, H, W, 3) as floats in 0 to 1 -> merged tokens (N, cells, size).

    Steps of clips are (N, 2, H, W, 3); each is seen by itself, as a picture is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Glm4vVisionConfig) -> None:
        super().__init__()
        image, patch, frames = config.image_size, config.patch_size, config.temporal_patch_size
        # the configuration's types allow pairs too
        assert isinstance(image, int)
        assert isinstance(patch, int)
        assert isinstance(frames, int)
        size, self.patch, self.side = config.hidden_size, patch, image // patch
        self.head = size // config.num_heads
        self.embeddings = VisionEmbeddings(self.side**2, size)
        self.patch_embed = PatchEmbed(size, frames, patch)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(config.out_hidden_size, config.intermediate_size)
        self.post_conv_layernorm = RMSNorm(size, config.rms_norm_eps)
        self.downsample = nn.Conv2d(size, config.out_hidden_size, 2, stride=2)
        self.post_layernorm = RMSNorm(size, config.rms_norm_eps)
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(N, F, H, W, 3) -> (N, patches, 3·F·14·14); the four patches of a cell are neighbours."""
        n, f, h, w, _ = pixels.shape
        p = self.patch
        x = ((pixels - self.mean) / self.std).view(n, f, h // p // 2, 2, p, w // p // 2, 2, p, 3)
        x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return x.reshape(n, (h // p) * (w // p), 3 * f * p * p)

    def _coordinates(self, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column of each patch in the order of `_patches`."""
        rows, cols = torch.meshgrid(
            torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij"
        )
        order = [t.view(h // 2, 2, w // 2, 2).permute(0, 2, 1, 3).flatten() for t in (rows, cols)]
        return order[0], order[1]

    def forward(self, pixels: Tensor) -> Tensor:
        conv = self.patch_embed.proj
        kernel = conv.weight
        if pixels.ndim == 4:  # a still picture fills both frames of the kernel
            pixels, kernel = pixels[:, None], kernel.sum(2, keepdim=True)
        h, w = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        x = F.linear(self._patches(pixels), kernel.flatten(1), conv.bias)
        x = self.post_conv_layernorm(x)
        rows, cols = self._coordinates(h, w, x.device)
        table = self.embeddings.position_embedding.weight.float().view(1, self.side, self.side, -1)
        grid = torch.stack(((cols + 0.5) / w, (rows + 0.5) / h), -1) * 2 - 1
        with torch.autocast(x.device.type, enabled=False):
            place = F.grid_sample(
                table.permute(0, 3, 1, 2),
                grid[None, :, None],
                "bicubic",
                "border",
                align_corners=False,
            )
        x = (x + place[0, :, :, 0].T).to(x.dtype)
        steps = torch.arange(0, self.head // 2, 2, device=x.device).float() / (self.head // 2)
        angles = torch.cat((rows[:, None], cols[:, None]), 1)[:, :, None] / 10000.0**steps
        angles = angles.flatten(1).repeat(1, 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.post_layernorm(x)
        n, length, size = x.shape
        cells = x.view(n, length // 4, 4, size).transpose(2, 3).reshape(n, length // 4, 4 * size)
        merged: Tensor = self.merger(
            F.linear(cells, self.downsample.weight.flatten(1), self.downsample.bias)
        )
        return merged


class TextAttention(nn.Module):
    def __init__(self, config: Glm4vTextConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.head = size // config.num_attention_heads
        inner = (config.num_key_value_heads or config.num_attention_heads) * self.head
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, inner)
        self.v_proj = nn.Linear(size, inner)
        self.o_proj = nn.Linear(size, size, bias=False)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn the first dimensions of each head, in neighbouring pairs."""
        turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        half = torch.stack((-turned[..., 1::2], turned[..., 0::2]), -1).flatten(-2)
        return torch.cat((turned * cos + half * sin, rest), -1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        r, length, size = x.shape
        q, k, v = (
            p(x).view(r, length, -1, self.head).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        repeat = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(repeat, 1) for t in (k, v))
        seen = F.scaled_dot_product_attention(q, k, v, mask)
        out: Tensor = self.o_proj(seen.transpose(1, 2).reshape(r, length, size))
        return out


class TextMlp(nn.Module):
    def __init__(self, config: Glm4vTextConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        out: Tensor = self.down_proj(up * F.silu(gate))
        return out


class TextLayer(nn.Module):
    def __init__(self, config: Glm4vTextConfig) -> None:
        super().__init__()
        self.self_attn = TextAttention(config)
        self.mlp = TextMlp(config)
        size, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(size, eps)
        self.post_attention_layernorm = RMSNorm(size, eps)
        self.post_self_attn_layernorm = RMSNorm(size, eps)
        self.post_mlp_layernorm = RMSNorm(size, eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.post_self_attn_layernorm(
            self.self_attn(self.input_layernorm(x), cos, sin, mask)
        )
        out: Tensor = x + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x)))
        return out


class Text(nn.Module):
    def __init__(self, config: Glm4vTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def _angles(self, positions: Tensor) -> Tensor:
        """(3, S, L) -> (S, 1, L, rotary): each section of the frequencies follows one axis."""
        rope: Any = self.config.rope_parameters  # its declared keys lack `mrope_section`
        head = self.config.hidden_size // self.config.num_attention_heads
        rotary = int(head * rope["partial_rotary_factor"])
        steps = torch.arange(0, rotary, 2, device=positions.device).float() / rotary
        angles = positions[..., None].float() / rope["rope_theta"] ** steps
        sections = angles.split(rope["mrope_section"], -1)
        picked = torch.cat([part[axis % 3] for axis, part in enumerate(sections)], -1)
        return picked.repeat_interleave(2, -1)[:, None]

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        angles = self._angles(positions)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        out: Tensor = self.norm(x)
        return out


class Inner(nn.Module):
    def __init__(self, text: Glm4vTextConfig, vision: Glm4vVisionConfig) -> None:
        super().__init__()
        self.visual = Vision(vision)
        self.language_model = Text(text)


class Helper(nn.Module):
    """What a merged token shows: linear layers that are thrown away after training."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.chars = nn.Linear(size, SLOTS * (len(CHARS) + 1))
        self.shapes = nn.Linear(size, len(SHAPES) + 1)
        self.boxes = nn.Linear(size, 4)


class Model(nn.Module):
    """The whole model.

    `forward` gives the language-model loss (`text`), the helper's losses, and the share of rows
    that the model would say without a slip (`exact …`).
    """

    def __init__(self, config: Glm4vConfig) -> None:
        super().__init__()
        text, vision = config.text_config, config.vision_config
        # the configuration's types allow dictionaries too
        assert isinstance(text, Glm4vTextConfig)
        assert isinstance(vision, Glm4vVisionConfig)
        self.model = Inner(text, vision)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.helper = Helper(text.hidden_size)
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, std=0.02)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)

    def embed(self, ids: Tensor, visual: Tensor, tokens: Tensor | None) -> Tensor:
        """Token embeddings, with visual tokens (N, C, size) in their places."""
        x: Tensor = self.model.language_model.embed_tokens(ids)
        if tokens is None:
            return x
        shown = tokens.reshape(-1, tokens.shape[-1]).to(x.dtype)
        return torch.where(visual[..., None] > 0, F.embedding((visual - 1).clamp(min=0), shown), x)

    def hidden(self, batch: Batch, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden states (S, L, size) and the visual tokens (N, C, size)."""
        tokens = self.model.visual(pixels) if len(pixels) else None
        x = self.embed(batch.ids, batch.visual, tokens)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.bfloat16)
        return self.model.language_model(x, batch.positions, batch.mask()), tokens

    def forward(
        self, batch: Batch, pixels: Tensor, *, helper_alone: bool = False
    ) -> dict[str, Tensor]:
        """The losses; with `helper_alone`, the helper's teach only the helper itself."""
        hidden, tokens = self.hidden(batch, pixels)
        told = batch.labels != IGNORED
        logits = self.lm_head(hidden[told]).float()
        losses = {"text": F.cross_entropy(logits, batch.labels[told])}
        with torch.no_grad():
            slips = (logits.argmax(-1) != batch.labels[told]).float()
            rows = int(batch.rows.max())
            wrong = torch.zeros(rows + 1, device=slips.device).index_add_(
                0, batch.rows[told], slips
            )
            losses[f"exact {batch.kind}"] = (wrong[1:] == 0).float().mean()
        if tokens is not None:
            losses |= self._helper_losses(batch, tokens.detach() if helper_alone else tokens)
        return losses

    def _helper_losses(self, batch: Batch, tokens: Tensor) -> dict[str, Tensor]:
        chars, shapes = batch.chars.long(), batch.shapes.long()
        weights = torch.ones(len(CHARS) + 1, device=tokens.device)
        weights[0] = 0.05  # most cells are empty
        predicted = self.helper.chars(tokens).float().view(-1, len(CHARS) + 1)
        losses = {"chars": F.cross_entropy(predicted, chars.flatten(), weights)}
        weights = torch.ones(len(SHAPES) + 1, device=tokens.device)
        weights[0] = 0.05
        losses["shapes"] = F.cross_entropy(
            self.helper.shapes(tokens).float().flatten(0, 1), shapes.flatten(), weights
        )
        there = (shapes > 0)[..., None].float()
        error = F.smooth_l1_loss(
            self.helper.boxes(tokens).float(), batch.boxes, reduction="none", beta=0.02
        )
        losses["boxes"] = (error * there).sum() / there.sum().clamp(min=1)
        return losses
