"""Turns exercises into training batches: packed tokens, pictures, the helper's targets."""

import random
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer

from . import dialogues, fonts, planning, video_tasks
from . import picture_tasks as tasks
from .picture_tasks import Size
from .pictures import COLOURS, KINDS, Picture
from .sample import Message, Sample, cut_thinking, with_system

T = TypeVar("T")

CELL = 28  # pixels of one visual token's side: two patches of 14
SHORTEST_SEQUENCE = 640  # tokens; items are packed into sequences at least so long
LONGEST_ITEM = 3072  # tokens; of more rows that share a head, several items are made
SLOTS = 6  # characters of a cell that the helper loss asks for
CHARS = {c: k for k, c in enumerate(string.printable[:94], 1)}  # 0: no character
SHAPES = {f"{c} {k}": n for n, (k, c) in enumerate(((k, c) for k in KINDS for c in COLOURS), 1)}
IGNORED = -100

# (width, height) of the pictures, all on the 28-pixel grid, and how often each is drawn for text,
# for shapes and for pairs of pictures.
SIZES: dict[Size, tuple[float, float, float]] = {
    (336, 224): (4, 3, 3),
    (224, 336): (2, 1, 1),
    (280, 280): (2, 2, 2),
    (448, 252): (2, 1, 0),
    (448, 336): (3, 2, 0.5),
    (336, 448): (3, 1, 0),
    (392, 392): (2, 2, 0),
    (560, 392): (2, 1, 0),
    (420, 588): (3, 0, 0),
    (560, 784): (4, 0.3, 0),
}
# The same for clips, without the columns.
CLIP_SIZES: dict[Size, float] = {
    (112, 112): 3,
    (140, 112): 2,
    (112, 168): 1,
    (168, 112): 3,
    (140, 140): 2,
    (168, 168): 2,
    (196, 112): 2,
    (168, 224): 1,
    (224, 168): 4,
    (224, 224): 0.7,
    (252, 140): 1,
    (336, 196): 0.4,
    (336, 252): 0.4,
}
# What a batch is about, and how often.
KINDS_OF_BATCHES = {
    "slip": 62,
    "shapes": 30,
    "pair": 10,
    "blank": 1,
    "text": 16,
    "video": 40,
    "document": 15,
    "plan": 50,
}
TOKENS_A_PATCH = 0.7  # size of a batch without pictures against one with


def render(messages: Sequence[Message]) -> str:
    """The prompt as the chat template renders it, up to the assistant's first token."""
    roles = {
        "system": "<|system|>",
        "user": "<|user|>",
        "assistant": "<|assistant|>",
        "tool": "<|observation|>",
    }
    media = {
        "image": "<|begin_of_image|><|image|><|end_of_image|>",
        "video": "<|begin_of_video|><|video|><|end_of_video|>",
    }
    text = "[gMASK]<sop>"
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text") or media[part["type"]] for part in content)
        text += f"{roles[message['role']]}\n{content}"
    return f"{text}<|assistant|>\n"


def stamped(seconds: Sequence[int]) -> str:
    """What stands for the frames of a clip in a prompt: each step as a picture, then its second."""
    return "".join(f"<|begin_of_image|><|image|><|end_of_image|>{second}" for second in seconds)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a token.

    Raises:
        ValueError: The vocabulary lacks the token.
    """
    found = tokenizer.token_to_id(token)
    if found is None:
        msg = f"the tokenizer has no token {token}: build it with training.tokenizer"
        raise ValueError(msg)
    return found


@dataclass
class Row:
    """One tokenised exercise; the first `asked` tokens are given and carry no loss."""

    head: list[int]  # up to the end of the last picture or clip; rows about one mostly share it
    tail: list[int]
    asked: int  # of the tail
    images: list[int]  # numbers of its pictures, or of its clip's steps, in the batch


@dataclass
class Item:
    """Rows with a common head, laid out one behind the other: each sees the head and itself."""

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray  # (3, length)
    visual: np.ndarray
    rows: np.ndarray  # 0 in the head, then 1, 2, …


@dataclass
class Batch:
    """Tensors of one training step: S sequences of L tokens, N pictures of C cells.

    A step of a clip is a picture too, of two frames.
    """

    kind: str  # of its exercises, one of `KINDS_OF_BATCHES`
    ids: torch.Tensor  # (S, L) int64
    labels: torch.Tensor  # (S, L) int64, the token to predict at each place, or IGNORED
    positions: torch.Tensor  # (3, S, L) int64: time, height, width
    visual: torch.Tensor  # (S, L) int64: 1 + number of the visual token here, 0 for text
    items: torch.Tensor  # (S, L) int64: 1 + number of the item within its sequence, 0 for padding
    rows: torch.Tensor  # (S, L) int64: number of the row in the batch from 1, 0 for heads
    pixels: torch.Tensor  # (N, H, W, 3) uint8, of clips (N, 2, H, W, 3)
    chars: torch.Tensor  # (N, C, SLOTS) uint8: the helper's characters
    shapes: torch.Tensor  # (N, C) uint8: kind and colour of the shape whose centre is in the cell
    boxes: torch.Tensor  # (N, C, 4) float32: its box in shares of width and height

    def to(self, device: str) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors = {k: change(v) for k, v in vars(self).items() if k != "kind"}
        return Batch(self.kind, **tensors)

    def mask(self) -> torch.Tensor:
        """(S, 1, L, L) bool: which earlier tokens each token sees."""
        length = self.ids.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        together = self.items[:, :, None] == self.items[:, None, :]
        seen = (self.rows[:, None, :] == 0) | (self.rows[:, None, :] == self.rows[:, :, None])
        return (earlier & together & seen)[:, None]


class Encoder:
    """Tokenises exercises and lays them out as a batch."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image, self.image_end, self.video_end, self.pad = (
            token_id(tokenizer, t)
            for t in ("<|image|>", "<|end_of_image|>", "<|end_of_video|>", "<|endoftext|>")
        )
        self._heads: dict[str, list[int]] = {}

    def row_under_system(self, sample: Sample) -> Row:
        """The row of an exercise without pictures; its head is the system prompt."""
        head, user, asked = render(sample.messages).partition("<|user|>")
        if head not in self._heads:
            self._heads[head] = self.tokenizer.encode(head, add_special_tokens=False).ids
        given, said = (
            self.tokenizer.encode(text, add_special_tokens=False).ids
            for text in (user + asked + sample.given, sample.target)
        )
        return Row(self._heads[head], given + said, len(given), [])

    def row(self, sample: Sample, images: list[int]) -> Row:
        encode = self.tokenizer.encode
        prompt = render(sample.messages) + sample.given
        if sample.clip:
            prompt = prompt.replace("<|video|>", stamped(sample.clip.seconds))
        asked = encode(prompt, add_special_tokens=False).ids
        said = encode(sample.target, add_special_tokens=False).ids
        end = self.video_end if sample.clip else self.image_end
        head = len(asked) - asked[::-1].index(end) if images else 0
        return Row(asked[:head], asked[head:] + said, len(asked) - head, images)

    def batch(self, kind: str, rows: list[Row], pictures: list[Picture], size: Size) -> Batch:
        """Lay out the rows; heads that are the same are laid out once."""
        wide, high = size[0] // CELL, size[1] // CELL
        grid = np.stack(np.divmod(np.arange(wide * high), wide))
        grid = np.concatenate((np.zeros((1, wide * high), np.int64), grid))
        shared: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Row]] = {}
        for k, row in enumerate(rows):
            alone = () if row.head else (k,)
            shared.setdefault((tuple(row.head) + alone, tuple(row.images)), []).append(row)
        items = [
            self._item(part, grid, max(wide, high))
            for group in shared.values()
            for part in _parts(group)
        ]
        chars, shapes, boxes = _helper_targets(pictures, wide, high)
        pixels = (
            np.stack([p.pixels for p in pictures])
            if pictures
            else np.zeros((0, 28, 28, 3), np.uint8)
        )
        arrays = (*self._pack(items), pixels, chars, shapes, boxes)
        return Batch(kind, *map(torch.from_numpy, arrays))

    def _item(self, group: list[Row], grid: np.ndarray, side: int) -> Item:
        """The common head, pictures' cells in place, then each row's tail but its last token."""
        cells = grid.shape[1]
        parts: list[tuple[np.ndarray, ...]] = []
        position = 0

        def text(ids: list[int], labels: list[int], row: int, start: int) -> None:
            n = len(ids)
            place = np.tile(np.arange(start, start + n), (3, 1))
            parts.append(
                (
                    np.array(ids, np.int64),
                    np.array(labels, np.int64),
                    place,
                    np.zeros(n, np.int64),
                    np.full(n, row),
                )
            )

        rest = group[0].head
        for image in group[0].images:
            mark = rest.index(self.image)
            text(rest[:mark], [IGNORED] * mark, 0, position)
            position += mark
            seen = np.arange(1, cells + 1) + image * cells
            parts.append(
                (
                    np.full(cells, self.image),
                    np.full(cells, IGNORED),
                    grid + position,
                    seen,
                    np.zeros(cells, np.int64),
                )
            )
            position += side
            rest = rest[mark + 1 :]
        text(rest, [IGNORED] * len(rest), 0, position)
        position += len(rest)
        for number, row in enumerate(group, 1):
            labels = [IGNORED] * (row.asked - 1) + row.tail[row.asked :]
            text(row.tail[:-1], labels, number, position)
        ids, labels_, positions, visual, rows = zip(*parts, strict=True)
        join = np.concatenate
        return Item(join(ids), join(labels_), join(positions, axis=1), join(visual), join(rows))

    def _pack(self, items: list[Item]) -> tuple[np.ndarray, ...]:
        """Fill sequences with items, longest first; the arrays of a `Batch` up to `rows`."""
        items = sorted(items, key=lambda item: -len(item.ids))
        longest = -(-max(len(items[0].ids), SHORTEST_SEQUENCE) // 64) * 64
        bins: list[list[Item]] = []
        room: list[int] = []
        for item in items:
            n = len(item.ids)
            fits = next((k for k, free in enumerate(room) if free >= n), None)
            if fits is None:
                bins.append([])
                room.append(longest)
                fits = len(bins) - 1
            bins[fits].append(item)
            room[fits] -= n
        shape = (len(bins), longest)
        ids, labels = np.full(shape, self.pad, np.int64), np.full(shape, IGNORED, np.int64)
        visual, numbers, rows = (np.zeros(shape, np.int64) for _ in range(3))
        positions = np.zeros((3, *shape), np.int64)
        before = 0
        for s, filled in enumerate(bins):
            start = 0
            for number, item in enumerate(filled, 1):
                span = slice(start, start + len(item.ids))
                ids[s, span], labels[s, span], visual[s, span] = item.ids, item.labels, item.visual
                positions[:, s, span], numbers[s, span] = item.positions, number
                rows[s, span] = np.where(item.rows > 0, item.rows + before, 0)
                before += int(item.rows.max())
                start = span.stop
        return ids, labels, positions, visual, numbers, rows


def _parts(group: list[Row]) -> Iterator[list[Row]]:
    """The rows of each item: no more behind one head than `LONGEST_ITEM` allows."""
    part: list[Row] = []
    length = 0
    for row in group:
        length += len(row.tail)
        if part and len(row.head) + length > LONGEST_ITEM:
            yield part
            part, length = [], len(row.tail)
        part.append(row)
    yield part


def _helper_targets(
    pictures: list[Picture], wide: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What stands in each cell, for the loss that teaches the vision tower to read."""
    cells = wide * high
    chars = np.zeros((len(pictures), cells, SLOTS), np.uint8)
    shapes = np.zeros((len(pictures), cells), np.uint8)
    boxes = np.zeros((len(pictures), cells, 4), np.float32)
    for n, picture in enumerate(pictures):
        w, h = picture.size
        filled = [0] * cells
        for x, y, c in picture.chars:
            if 0 <= x < w and 0 <= y < h:
                cell = int(y // CELL) * wide + int(x // CELL)
                if filled[cell] < SLOTS:
                    chars[n, cell, filled[cell]] = CHARS[c]
                    filled[cell] += 1
        for shape in picture.shapes:
            x, y = shape.centre
            cell = int(y // CELL) * wide + int(x // CELL)
            shapes[n, cell] = SHAPES[str(shape)]
            boxes[n, cell] = np.array(shape.box) / (w, h, w, h)
    return chars, shapes, boxes


NEUTRAL_SYSTEM = (
    "You are a helpful assistant.",
    "You read pictures.",
    "Be brief.",
    "Answer in English.",
)


def _vary(rng: random.Random, sample: Sample) -> Sample:
    """Now and then a system prompt, an order to obey, or a thinking that is cut short."""
    chance = rng.random()
    if sample.skill in {"field", "line", "count"} and chance < 0.03:
        sample = dialogues.obey(rng, sample)
    elif chance < 0.1 and sample.messages[0]["role"] != "system":
        sample = with_system(sample, rng.choice(NEUTRAL_SYSTEM))
    return cut_thinking(rng, sample) if rng.random() < 0.08 else sample


def _draw(rng: random.Random, weights: Mapping[T, float]) -> T:
    """One of the keys; their values say how often."""
    return rng.choices(list(weights), weights=list(weights.values()))[0]


class Stream:
    """An endless stream of batches; `progress` (0 to 1) sets how hard they are.

    Of exercises with pictures or clips, it has only those to train on, or only those held out.
    """

    def __init__(
        self, tokenizer: Tokenizer, seed: str, patches: int, *, held_out: bool = False
    ) -> None:
        self.patches = patches  # of the pictures of a batch, together
        self.held_out = held_out
        self.rng = random.Random(seed)
        self.encoder = Encoder(tokenizer)
        self.fonts: list[Path] = fonts.paths()

    def __call__(self, progress: float, kind: str = "") -> Batch:
        """The next batch, of any kind if none is given."""
        kind = kind or _draw(self.rng, KINDS_OF_BATCHES)
        if kind == "text":
            return self._text_batch()
        if kind == "plan":
            return self._plan_batch()
        if kind == "video":
            return self._picture_batch(kind, _draw(self.rng, CLIP_SIZES), progress)
        column = {"shapes": 1, "pair": 2}.get(kind, 0)
        # small pages first: reading starts on few lines
        largest = 120_000 + progress * 4 * 440_000
        sizes = [s for s in SIZES if s[0] * s[1] <= largest]
        size = _draw(self.rng, {size: SIZES[size][column] for size in sizes})
        return self._picture_batch(kind, size, progress)

    def _group(self, kind: str, size: Size, progress: float) -> list[Sample]:
        rng = self.rng
        if kind == "slip":
            return self._on_slip(size, max(1, min(12, int(1 + progress * 50))))
        if kind == "shapes":
            return tasks.on_shapes(rng, size, max(2, min(10, int(2 + progress * 40))))
        if kind == "video":
            return video_tasks.on_clip(rng, size, self.fonts)
        if kind == "document":
            return tasks.on_document(rng, size, self.fonts)
        return tasks.on_pair(rng, size, self.fonts) if kind == "pair" else [tasks.blank(rng, size)]

    def _on_slip(self, size: Size, most: int) -> list[Sample]:
        group = tasks.on_slip(self.rng, size, self.fonts, most)
        page = group[0].pictures[0]
        known = tasks.fields(page)
        if known and self.rng.random() < 0.25:
            group.append(dialogues.json_from_page(self.rng, page, known))
        return group

    def _picture_batch(self, kind: str, size: Size, progress: float) -> Batch:
        patches = 4 * (size[0] // CELL) * (size[1] // CELL)
        rows: list[Row] = []
        pictures: list[Picture] = []
        wanted = max(4, self.patches // patches)
        while len(pictures) < (wanted if kind != "blank" else wanted // 4):
            group = self._group(kind, size, progress)
            shown = group[0].shown
            if group[0].held_out != self.held_out and kind != "blank":
                continue
            numbers = list(range(len(pictures), len(pictures) + len(shown)))
            pictures += shown
            rows += [self.encoder.row(_vary(self.rng, s), numbers) for s in group]
        return self.encoder.batch(kind, rows, pictures, size)

    def _text_batch(self) -> Batch:
        rng = self.rng
        rows: list[Row] = []
        tokens = 0
        while tokens < self.patches * TOKENS_A_PATCH:
            sample = dialogues.text_only(rng)
            rows.append(
                self.encoder.row(cut_thinking(rng, sample) if rng.random() < 0.12 else sample, [])
            )
            tokens += len(rows[-1].tail)
        return self.encoder.batch("text", rows, [], (CELL, CELL))

    def _plan_batch(self) -> Batch:
        rng = self.rng
        rows: list[Row] = []
        tokens = 0
        while tokens < self.patches * TOKENS_A_PATCH:
            group = planning.group(rng, held_out=self.held_out)
            made = [self.encoder.row_under_system(sample) for sample in group]
            rows += made
            tokens += len(made[0].head) + sum(len(row.tail) for row in made)
        return self.encoder.batch("plan", rows, [], (CELL, CELL))


def corpus(rng: random.Random, count: int, font_paths: list[Path]) -> Iterator[str]:
    """Texts of the exercises, to train the tokenizer on."""
    for _ in range(count):
        group = [dialogues.text_only(rng)]
        group += tasks.on_slip(rng, (336, 448), font_paths, 8) + tasks.on_shapes(rng, (336, 224), 5)
        group += [*tasks.on_pair(rng, (280, 280), font_paths), tasks.blank(rng, (280, 280))]
        for sample in group:
            yield render(sample.messages) + sample.target


__all__ = ["Batch", "Encoder", "Stream", "corpus", "render", "token_id"]
