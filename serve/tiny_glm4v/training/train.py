r"""Trains the miniature on generated exercises until its time is up; goes on where it was stopped.

    python -m training.train --tokenizer tokenizer.json --state state.pt --out OUT \\
        --seconds 560 --planned-seconds 1600

The learning rate follows the share of the planned time that is spent, so a run may be cut into
calls. Several GPUs: start it by `torchrun`. The picture generators run in processes beside it.

With `--weights` it teaches a finished miniature something new: at a lower learning rate, with all
difficulties from the start, and with a new helper that first learns to read the vision tower.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from . import checkpoint
from .batches import Batch, Stream
from .model import Model
from .muon import Muon

LEARNING_RATE = 2e-3  # of Muon, scaled to AdamW's step size; AdamW takes half
TUNING = 0.5  # share of the learning rate for a finished miniature
WARMUP_STEPS = 200
CURRICULUM = 0.15  # share of the time over which pages grow from one line to twelve
KEEP_EVERY = 100  # seconds between saved states
CHECKED = (
    "slip",
    "shapes",
    "pair",
    "video",
    "document",
    "text",
    "plan",
)  # kinds whose held-out exercises are scored at the end
CHECK_PATCHES = 30_000  # of each kind, at most, in each generator process
WEIGHTS = {"text": 1.0, "chars": 0.5, "shapes": 0.3, "boxes": 2.0}


class Endless(IterableDataset[Batch]):
    """Batches of `Stream`; `progress`, how hard they are, is shared with the trainer."""

    def __init__(self, tokenizer: Path, seed: str, patches: int, progress: Tensor) -> None:
        self.tokenizer, self.seed, self.patches, self.progress = tokenizer, seed, patches, progress

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        stream = Stream(
            Tokenizer.from_file(str(self.tokenizer)), f"{self.seed}/{_worker()}", self.patches
        )
        while True:
            yield stream(self.progress.item())


class HeldOut(IterableDataset[Batch]):
    """Held-out batches, one of each kind from each process."""

    def __init__(self, tokenizer: Path, patches: int) -> None:
        self.tokenizer, self.patches = tokenizer, min(patches, CHECK_PATCHES)

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        tokenizer = Tokenizer.from_file(str(self.tokenizer))
        stream = Stream(tokenizer, f"check/{_worker()}", self.patches, held_out=True)
        for kind in CHECKED:
            yield stream(1.0, kind)


def _worker() -> int:
    """Number of this generator process."""
    worker = torch.utils.data.get_worker_info()
    return worker.id if worker else 0


def degrade(pixels: Tensor) -> Tensor:
    """Pictures (N, H, W, 3) uint8 to floats in 0 to 1, worn as scans and photos are.

    Light falls unevenly, contrast and tint change, print blurs, sensors add noise. The two frames
    of a step, pixels (N, 2, H, W, 3), differ in noise alone.
    """
    n, (h, w) = len(pixels), pixels.shape[-3:-1]
    if not n:
        return pixels.float() / 255
    x = pixels.view(n, -1, h, w, 3).float() / 255

    def draw(*shape: int) -> Tensor:
        return torch.rand(n, *shape, device=x.device)

    kernel = torch.tensor([1.0, 2.0, 1.0], device=x.device) / 4
    kernel = (kernel[:, None] * kernel)[None, None].expand(3, 1, 3, 3)
    flat = F.pad(x.flatten(0, 1).permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(flat, kernel, groups=3).permute(0, 2, 3, 1).view_as(x)
    blur = draw(1, 1, 1, 1) * (draw(1, 1, 1, 1) < 0.35)
    x = x + blur * (blurred - x)
    worn = (draw(1, 1, 1, 1) < 0.5).float()
    slope = (draw(2, 1, 1, 1, 1) - 0.5) * 0.3
    ramp = (
        slope[:, 0] * torch.linspace(-0.5, 0.5, h, device=x.device)[:, None, None]
        + slope[:, 1] * torch.linspace(-0.5, 0.5, w, device=x.device)[:, None]
    )
    tint = 1 + (draw(1, 1, 1, 3) - 0.5) * 0.08
    contrast = 0.7 + 0.3 * draw(1, 1, 1, 1)
    lift = draw(1, 1, 1, 1) * (1 - contrast)
    noise = torch.randn_like(x[..., :1]) * draw(1, 1, 1, 1) * 0.05
    changed = (x * contrast + lift) * tint * (1 + ramp) + noise
    return (x + worn * (changed - x)).clamp(0, 1).view_as(pixels)


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else.

    The vision tower has a Muon of its own, which rests where a batch has no pictures.
    """
    seeing: list[nn.Parameter] = []
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        is_seeing = p.ndim == 2 and ("blocks" in name or "merger" in name)
        is_inner = p.ndim == 2 and "layers" in name
        (seeing if is_seeing else inner if is_inner else outer).append(p)
    return [
        Muon(seeing, lr=LEARNING_RATE),
        Muon(inner, lr=LEARNING_RATE),
        torch.optim.AdamW(
            outer, lr=LEARNING_RATE / 2, betas=(0.9, 0.95), weight_decay=0.0, fused=outer[0].is_cuda
        ),
    ]


def rate(step: int, spent: float) -> float:
    """Share of the full learning rate: warm up, hold, then fall to nothing over the last half."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, max(0.0, (1.0 - spent) / 0.5))


class Meter:
    """Means of the losses since they were last read."""

    def __init__(self) -> None:
        self._losses: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self._losses[name].append(loss.detach())

    def read(self) -> str:
        means = {name: torch.stack(seen).mean().item() for name, seen in self._losses.items()}
        self._losses.clear()
        return " ".join(f"{name} {mean:.4f}" for name, mean in means.items())


def average_gradients(model: nn.Module) -> None:
    """Mean of the gradients over all processes, in one message."""
    parameters = list(model.parameters())
    flat = torch.cat(
        [
            torch.zeros(p.numel(), device=p.device) if p.grad is None else p.grad.flatten()
            for p in parameters
        ]
    )
    dist.all_reduce(flat, op=dist.ReduceOp.AVG)
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = grad.view_as(p)


class Trainer:
    """One process of a training run: its model, optimizers and stream of batches."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.began = args, time.monotonic()
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.device = gpu if torch.cuda.is_available() else "cpu"
        if self.world > 1:
            torch.cuda.set_device(self.device)
            dist.init_process_group("nccl")
        torch.manual_seed(self.rank)
        torch.set_float32_matmul_precision("high")
        config = checkpoint.config(Tokenizer.from_file(str(args.tokenizer)))
        self.model = Model(config).to(self.device)
        self.optimizers = optimizers(self.model)
        scale = TUNING if args.weights else 1.0
        self.full_rates = [scale * o.param_groups[0]["lr"] for o in self.optimizers]
        self.counts: dict[str, float] = {"step": 0, "seconds": 0.0, "pictures": 0, "rows": 0}
        self.meter = Meter()
        self._resume()
        self.earlier = self.counts["seconds"]
        self.progress = torch.tensor(self._difficulty).share_memory_()
        if args.compile:
            inner = self.model.model
            for layer in (*inner.visual.blocks, *inner.language_model.layers):
                layer.compile(dynamic=True)

    @property
    def spent(self) -> float:
        """Share of the planned time that is over."""
        planned: float = self.args.planned_seconds
        return self.counts["seconds"] / planned

    @property
    def _difficulty(self) -> float:
        return 1.0 if self.args.weights else min(1.0, self.spent / CURRICULUM)

    def _resume(self) -> None:
        if self.args.state.exists():
            state = torch.load(self.args.state, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optim, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optim.load_state_dict(saved)
            self.counts |= state["counts"]
        elif self.args.weights:
            self.model.load_state_dict(load_file(self.args.weights), strict=False)

    def _batches(self) -> Iterator[Batch]:
        args = self.args
        # another seed after each resume, so that no exercise comes twice
        seed = f"{args.seed}/{int(self.counts['step'])}/{self.rank}"
        return self._load(Endless(args.tokenizer, seed, args.patches, self.progress))

    def _load(self, data: IterableDataset[Batch]) -> Iterator[Batch]:
        workers: int = self.args.workers
        loader = DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            pin_memory=self.device != "cpu",
            prefetch_factor=4 if workers else None,
            multiprocessing_context="fork" if workers else None,
        )
        return iter(loader)

    @torch.no_grad()
    def _check(self) -> str:
        """Share of held-out rows, thinking and answer, that the model says without a slip.

        Fed with the right tokens before, that is whole greedy outputs; nothing is worn.
        """
        right: dict[str, float] = defaultdict(float)
        rows: dict[str, int] = defaultdict(int)
        kind = self.device.split(":", maxsplit=1)[0]
        for batch in self._load(HeldOut(self.args.tokenizer, self.args.patches)):
            count = int(batch.rows.max())
            moved = batch.to(self.device)
            with (
                torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"),
                torch.compiler.set_stance("force_eager"),  # compiling for once takes longer
            ):
                losses = self.model(moved, moved.pixels.float() / 255)
            right[batch.kind] += losses[f"exact {batch.kind}"].item() * count
            rows[batch.kind] += count
        return ", ".join(f"{name} {right[name] / n:.1%} of {n}" for name, n in rows.items())

    def _is_over(self) -> bool:
        """Whether to stop; asked now and then, because all processes must agree."""
        if self.counts["step"] % 10 and self.device != "cpu":
            return False
        over = self.counts["seconds"] - self.earlier > self.args.seconds or self.spent > 1
        stop = torch.tensor(float(over), device=self.device)
        if self.world > 1:
            dist.all_reduce(stop)
        return bool(stop.item())

    def _step(self, batch: Batch) -> None:
        kind = self.device.split(":", maxsplit=1)[0]
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            helper_alone = bool(self.args.weights) and self.counts["step"] <= WARMUP_STEPS
            losses = self.model(batch, degrade(batch.pixels), helper_alone=helper_alone)
        total = sum(weight * losses[name] for name, weight in WEIGHTS.items() if name in losses)
        total.backward()
        if self.world > 1:
            average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        share = rate(int(self.counts["step"]), self.spent)
        for optim, full in zip(self.optimizers, self.full_rates, strict=True):
            for group in optim.param_groups:
                group["lr"] = full * share
            optim.step()
            optim.zero_grad(set_to_none=True)
        self.meter.add(losses)

    def _save(self) -> None:
        """Write all that is needed to go on; moved in place, so it is never half a file."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "counts": self.counts,
        }
        beside = self.args.state.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(self.args.state)

    def _export(self) -> None:
        """Write the checkpoint folder that vLLM and transformers load."""
        state = self.model.state_dict()
        weights = {name: p for name, p in state.items() if not name.startswith("helper.")}
        checkpoint.save_files(Tokenizer.from_file(str(self.args.tokenizer)), self.args.out)
        checkpoint.save_weights(weights, self.args.out)

    def run(self) -> None:
        """Train until the time is up, then save and export."""
        batches = self._batches()
        shown = kept = time.monotonic()
        while not self._is_over():
            batch = next(batches)
            self.counts["step"] += 1
            self.counts["pictures"] += len(batch.pixels) * self.world
            self.counts["rows"] += int(batch.rows.max()) * self.world
            self._step(batch.to(self.device))
            now = time.monotonic()
            self.counts["seconds"] = self.earlier + now - self.began
            self.progress.fill_(self._difficulty)
            if self.rank == 0 and now - shown > self.args.report:
                counted = " ".join(f"{name} {value:.0f}" for name, value in self.counts.items())
                print(counted, self.meter.read(), flush=True)
                shown = now
            if self.rank == 0 and now - kept > KEEP_EVERY:
                self._save()
                kept = now
        if self.rank == 0:
            self._save()
            self._export()
            print(json.dumps(self.counts), flush=True)
            print("held out, whole outputs exact:", self._check(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument(
        "--state", type=Path, required=True, help="where to go on from, and to stop at"
    )
    parser.add_argument(
        "--weights", type=Path, help="teach these weights more, or go on with that from the state"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the finished checkpoint"
    )
    parser.add_argument("--seconds", type=float, required=True, help="stop this call after so long")
    parser.add_argument(
        "--planned-seconds", type=float, required=True, help="length of all calls together"
    )
    parser.add_argument("--patches", type=int, default=100_000, help="size of a batch on each GPU")
    parser.add_argument("--workers", type=int, default=15, help="generator processes of each GPU")
    parser.add_argument(
        "--report", type=float, default=15, help="seconds between lines of progress"
    )
    parser.add_argument("--seed", default="train")
    parser.add_argument("--compile", action="store_true")
    Trainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
