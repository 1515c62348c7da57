"""The miniature: what it is trained and scored on, its training model, the shipped checkpoint."""

import base64
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig, Glm4vVisionConfig

from langchain_glm4v.profiles import CONTROL_TOKENS
from langchain_glm4v.server.options import CHAT_TEMPLATE
from tiny_glm4v import checkpoint_path
from training import (
    batches,
    checkpoint,
    dialogues,
    evaluate,
    fonts,
    picture_tasks,
    pictures,
    planning,
    video_tasks,
    videos,
)
from training.batches import Batch, Encoder
from training.model import Model
from training.picture_tasks import Size
from training.pictures import Picture, Shape
from training.reference import Reference, media
from training.sample import IMAGE, VIDEO, Message, Sample, ask, cut_thinking, held_out
from training.tokenizer import EOS_TOKENS, SPECIAL_TOKENS
from training.train import degrade
from training.videos import Clip, Scene

SHIPPED = checkpoint_path()
SIZE = (112, 84)  # width, height: 4 by 3 cells
LARGEST_WEIGHTS = 24_000_000  # bytes


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on models so small and cores so busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))


@pytest.fixture(scope="module")
def processor() -> Any:
    return transformers.AutoProcessor.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    """The architecture with two layers each, and nothing at its initial value."""
    config = checkpoint.config(tokenizer)
    assert isinstance(config.text_config, Glm4vTextConfig)
    assert isinstance(config.vision_config, Glm4vVisionConfig)
    config.text_config.num_hidden_layers = config.vision_config.depth = 2
    torch.manual_seed(0)
    made = Model(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.06)
    return made.eval()


@pytest.fixture(scope="module")
def theirs(model: Model, tokenizer: Tokenizer) -> Any:
    """transformers' model with the weights of `model`."""
    config = checkpoint.config(tokenizer)
    config.text_config = model.model.language_model.config
    assert isinstance(config.vision_config, Glm4vVisionConfig)
    config.vision_config.depth = len(model.model.visual.blocks)
    made = transformers.Glm4vForConditionalGeneration(config).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("helper.")}
    made.load_state_dict(weights, strict=True)
    return made


def noise(seed: int) -> Picture:
    """Random pixels, said to show some characters and shapes."""
    width, height = SIZE
    return Picture(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8),
        lines=[f"Total: {seed}"],
        chars=[(10.0, 10.0, "T"), (20.0, 10.0, "o"), (100.0, 80.0, "~"), (width + 5.0, 10.0, "x")],
        shapes=[Shape("star", "blue", (56.0, 28.0, 80.0, 54.0))],
    )


def asked(first: int = 0, count: int = 1) -> Sample:
    """An exercise about `count` pictures with text before, between and after them."""
    content: list[Any] = [{"type": "text", "text": "Look: "}]
    for number in range(count):
        content += [IMAGE, {"type": "text", "text": f"this is {number}. "}]
    shown = [noise(first + number) for number in range(count)]
    return Sample("field", [{"role": "user", "content": content}], "I look.", "3.20", shown)


def asked_about_clip(first: int = 0) -> Sample:
    """An exercise about a clip of three steps, of two frames of random pixels each."""
    steps = [
        Picture(np.stack((noise(first + k).pixels, noise(first + k + 50).pixels))) for k in range(3)
    ]
    clip = Clip([Scene(2, text="Total"), Scene(1, "blue")], [8, 10, 12], steps)
    texts: list[Any] = [{"type": "text", "text": text} for text in ("Look: ", "When?")]
    messages = [{"role": "user", "content": [texts[0], VIDEO, texts[1]]}]
    return Sample("when", messages, "I look.", f"At second {first}.", clip=clip)


def layout(tokenizer: Tokenizer, groups: list[list[Sample]]) -> Batch:
    """The batch of groups of exercises, each group about the same pictures."""
    encoder = Encoder(tokenizer)
    shown: list[Picture] = []
    rows = []
    for group in groups:
        numbers = [len(shown) + k for k in range(len(group[0].shown))]
        shown += group[0].shown
        planned = group[0].skill.startswith("plan")
        rows += [
            encoder.row_under_system(sample) if planned else encoder.row(sample, numbers)
            for sample in group
        ]
    return encoder.batch("slip", rows, shown, SIZE)


# --- The training model ---


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(asked(), id="a picture"),
        pytest.param(asked(count=2), id="two pictures"),
        pytest.param(asked_about_clip(), id="a clip"),
    ],
)
def test_model_gives_the_logits_of_transformers(
    model: Model, theirs: Any, processor: Any, tokenizer: Tokenizer, sample: Sample
) -> None:
    batch = layout(tokenizer, [[sample]])
    prompt = processor.apply_chat_template(
        sample.messages, add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[prompt + sample.target], **media(sample), return_tensors="pt")
    length = inputs["input_ids"].shape[1] - 1
    with torch.no_grad():
        hidden, _ = model.hidden(batch, batch.pixels / 255)
        ours = model.lm_head(hidden)[0, :length]
        wanted = theirs(**inputs).logits[0, :length]
    assert batch.ids[0, :length].tolist() == inputs["input_ids"][0, :length].tolist()
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=1e-3)


def questions() -> list[list[Sample]]:
    """Exercises about one picture (some share it), about two, and with a given beginning."""
    first = asked()
    others = [replace(first, answer="Corner Bakery"), cut_thinking(random.Random(3), first)]
    pair = replace(asked(2, count=2), answer="Both.")
    return [[first, *others], [replace(asked(1), answer="4.75")], [pair]]


def clips() -> list[list[Sample]]:
    """Exercises about two clips, of which two share one."""
    first = asked_about_clip()
    return [
        [first, cut_thinking(random.Random(3), replace(first, answer="2"))],
        [asked_about_clip(9)],
    ]


def talk() -> list[list[Sample]]:
    rng = random.Random(5)
    return [[dialogues.text_only(rng)] for _ in range(4)]


def plans() -> list[list[Sample]]:
    """Two groups of exercises of an agent, more than one item may hold of the first."""
    rng = random.Random(6)
    first, second, third = (planning.group(rng) for _ in range(3))
    system = first[0].messages[0]
    second = [replace(s, messages=[system, *s.messages[1:]]) for s in second]
    return [first + second, third[:2]]


def told(model: Model, batch: Batch) -> dict[tuple[int, ...], torch.Tensor]:
    """The logits of each row, by the tokens that it should say."""
    with torch.no_grad():
        logits = model.lm_head(model.hidden(batch, batch.pixels / 255)[0])
    rows = (
        (batch.rows == k) & (batch.labels != batches.IGNORED)
        for k in range(1, int(batch.rows.max()) + 1)
    )
    return {tuple(batch.labels[row].tolist()): logits[row] for row in rows}


@pytest.mark.parametrize("make", [questions, clips, talk, plans])
def test_packed_rows_are_as_alone(
    model: Model, tokenizer: Tokenizer, make: Callable[[], list[list[Sample]]]
) -> None:
    groups = make()
    packed = layout(tokenizer, groups)
    alone = [layout(tokenizer, [[sample]]) for group in groups for sample in group]
    assert len(packed.ids) < len(alone)
    expected = {said: logits for batch in alone for said, logits in told(model, batch).items()}
    assert len(expected) == len(alone)
    torch.testing.assert_close(told(model, packed), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        losses = [model(batch, batch.pixels / 255)["text"].item() for batch in alone]
        loss = model(packed, packed.pixels / 255)["text"].item()
    lengths = [int((batch.labels != batches.IGNORED).sum()) for batch in alone]
    assert loss == pytest.approx(np.average(losses, weights=lengths), rel=1e-5)


def test_the_miniature_has_the_control_tokens_that_the_client_knows() -> None:
    boxes = {"<|begin_of_box|>", "<|end_of_box|>"}
    assert set(SPECIAL_TOKENS) == {*CONTROL_TOKENS, *boxes}


def test_loss_is_on_what_the_model_should_say(tokenizer: Tokenizer) -> None:
    for sample in (sample for group in questions() + clips() + talk() for sample in group):
        batch = layout(tokenizer, [[sample]])
        said = batch.labels[batch.labels != batches.IGNORED].tolist()
        assert tokenizer.decode(said, skip_special_tokens=False) == sample.target


def test_helper_is_told_what_stands_in_each_cell(tokenizer: Tokenizer) -> None:
    batch = layout(tokenizer, [[asked()]])
    chars, names = ["", *batches.CHARS], ["", *batches.SHAPES]
    read = ["".join(chars[k] for k in cell) for cell in batch.chars[0].tolist()]
    assert read == ["To", *[""] * 10, "~"]
    assert [names[k] for k in batch.shapes[0].tolist()] == [*[""] * 6, "blue star", *[""] * 5]
    there = torch.tensor([56 / 112, 28 / 84, 80 / 112, 54 / 84])
    torch.testing.assert_close(batch.boxes[0, 6], there)


# --- The exercises ---


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": "Hello"}], id="string"),
        pytest.param(asked(count=2).messages, id="pictures between texts"),
        pytest.param(asked_about_clip().messages, id="a clip between texts"),
        pytest.param(
            [
                {"role": "system", "content": "Be brief.\n"},
                *ask("field", "What is it?", "", "", [noise(0)], text_first=True).messages,
                {"role": "assistant", "content": "<think></think><answer>A page.</answer>"},
                {"role": "tool", "content": '{"a": 1}'},
                {"role": "user", "content": [{"type": "text", "text": " 你好 "}]},
            ],
            id="all roles",
        ),
    ],
)
def test_prompts_are_rendered_as_by_the_chat_template(
    processor: Any, messages: list[Message]
) -> None:
    for renderer in (processor, processor.tokenizer):
        rendered = renderer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        assert batches.render(messages) == rendered


DRAW = """
import hashlib, random
from training import dialogues, picture_tasks as tasks, video_tasks
rng = random.Random("seed")
seen = hashlib.sha256()
for _ in range(300):
    seen.update(repr(dialogues.text_only(rng)).encode())
for _ in range(3):
    group = tasks.on_shapes(rng, (224, 168), 6) + [tasks.blank(rng, (112, 112))]
    group += [make(rng, (140, 140)) for make in (tasks.compare_counts, tasks.compare_common)]
    group += video_tasks.on_clip(rng, (112, 112), [])
    for sample in group:
        seen.update(repr((sample.messages, sample.target)).encode())
        for picture in sample.shown:
            seen.update(picture.pixels.tobytes() + repr(picture.shapes).encode())
print(seen.hexdigest())
"""


def test_same_seed_gives_the_same_exercises_in_every_process() -> None:
    folder = str(Path(batches.__file__).parents[1])
    seen = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(seen) == 1


def test_another_seed_gives_other_exercises() -> None:
    first, second = (
        [dialogues.text_only(rng) for _ in range(20)] for rng in map(random.Random, "ab")
    )
    assert first != second


def test_evaluation_set_is_the_same_on_every_run() -> None:
    skill = evaluate.Skill("Memory", "exact", 0.9, dialogues.memory, evaluate.exact)
    first, again = evaluate.samples(skill, 20), evaluate.samples(skill, 20)
    assert len(first) == 20
    assert first == again


def test_one_picture_in_sixteen_is_held_out_by_what_it_shows() -> None:
    pixels = np.zeros((28, 28, 3), np.uint8)
    sides = [held_out(Picture(pixels, lines=[f"Total: {k}"])) for k in range(3200)]
    assert 160 < sum(sides) < 240
    assert sides == [held_out(Picture(pixels + 9, lines=[f"Total: {k}"])) for k in range(3200)]


class Recorder(Encoder):
    """Keeps the pictures that go into batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.shown: list[Picture] = []

    def batch(
        self, kind: str, rows: list[batches.Row], pictures: list[Picture], size: Size
    ) -> Batch:
        self.shown += pictures
        return super().batch(kind, rows, pictures, size)


def test_training_never_shows_a_held_out_picture(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "paths", list)  # shapes need none
    drawn: list[Picture] = []
    draw = pictures.shapes

    def keep(rng: random.Random, size: Size, wanted: list[tuple[str, str]]) -> Picture:
        drawn.append(draw(rng, size, wanted))
        return drawn[-1]

    monkeypatch.setattr(pictures, "shapes", keep)
    stream = batches.Stream(tokenizer, "test", patches=16_000)
    stream.encoder = recorder = Recorder(tokenizer)
    batch = stream._picture_batch("shapes", (280, 280), 0.5)
    assert len(recorder.shown) == len(batch.pixels) == 40
    assert any(map(held_out, drawn))
    assert not any(map(held_out, recorder.shown))


@pytest.mark.parametrize("kept", [False, True])
def test_a_stream_has_only_clips_that_are_held_out_or_none(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(fonts, "paths", list)  # clips without text need none
    drawn: list[Clip] = []
    draw = videos.clip

    def keep(rng: random.Random, size: Size, font_paths: list[Path]) -> Clip:
        drawn.append(draw(rng, size, font_paths))
        return drawn[-1]

    monkeypatch.setattr(videos, "clip", keep)
    stream = batches.Stream(tokenizer, "test", patches=6_400, held_out=kept)
    batch = stream(1.0, "video")
    right = [clip for clip in drawn if held_out(clip) == kept]
    assert 0 < len(right) < len(drawn)
    assert len(batch.pixels) == sum(len(clip.steps) for clip in right)


def test_evaluation_shows_only_held_out_pictures() -> None:
    rng = random.Random(1)
    for _ in range(3):
        assert held_out(evaluate._unseen(lambda: picture_tasks.shapes(rng, (112, 112), 3)))


# --- Clips ---


STORY = Clip(
    [
        Scene(2, shape=("circle", "red")),
        Scene(1, "blue"),
        Scene(3, shape=("star", "green"), text="Bread"),
        Scene(1, text="42"),
    ],
    list(range(7)),
    [],
)
SLOW = replace(STORY, seconds=list(range(0, 28, 4)))


WHOLE = "0-1: red circle; 2: blue screen; 3-5: green star and Bread; 6: 42"


def test_timeline_names_the_first_and_last_second_of_each_scene() -> None:
    assert video_tasks.timeline(STORY) == WHOLE
    slow = "0-4: red circle; 8: blue screen; 12-20: green star and Bread; 24: 42"
    assert video_tasks.timeline(SLOW) == slow


ANSWERS: dict[str, dict[str, str]] = {
    "describe": {
        "Describe the video.": "0-1: red circle; 2: blue screen; 3-5: green star and Bread; 6: 42"
    },
    "when": {
        "At which second does the word Bread appear?": "At second 3.",
        "When is the red circle shown?": "Seconds 0-1.",
        "When is the blue screen shown?": "Second 2.",
        'When does the number "42" appear?': "At second 6.",
    },
    "appears": {"Does the blue screen appear?": "Yes, at second 2."},
    "at": {
        "What is written at second 4?": "Bread",
        "What is written at second 1?": "Nothing",
        "What is shown at second 4?": "green star and Bread",
        "What is shown at second 4? Name the seconds.": "green star and Bread (3-5)",
    },
    "written": {
        "What is written in the video?": "Bread\n42",
        "Answer with seconds: Read all text in the video.": "Bread (3-5)\n42 (6)",
    },
    "stretch": {
        "What happens between second 1 and second 2?": "1: red circle; 2: blue screen",
        "Describe seconds 0 to 6.": WHOLE,
        "Look at seconds 5 to 6 only. Describe the video.": "5: green star and Bread; 6: 42",
    },
    "scenes": {
        "How many scenes?": "4",
        "How many scenes are there? Name the seconds.": "4 (0-1, 2, 3-5, 6)",
    },
    "order": {
        "What is the second scene?": "blue screen",
        "What comes first?": "red circle",
        "What comes last?": "42",
        "What comes after the red circle?": "blue screen",
        "What comes before 42? Name the seconds.": "green star and Bread (3-5)",
    },
}


@pytest.mark.parametrize("skill", ANSWERS)
def test_answers_about_a_clip_are_true(skill: str) -> None:
    rng, left = random.Random(1), dict(ANSWERS[skill])
    for _ in range(50_000):
        if not left:
            break
        sample = getattr(video_tasks, skill)(rng, STORY)
        question = next(p["text"] for p in sample.messages[0]["content"] if p != VIDEO)
        assert sample.answer == left.pop(question, sample.answer), question
    assert not left, "never asked"


def test_second_between_two_stamps_belongs_to_the_first_of_them() -> None:
    rng = random.Random(2)
    asked = (video_tasks.at(rng, SLOW) for _ in range(5_000))
    questions = ((s.messages[0]["content"], s.answer) for s in asked)
    answers = {
        answer for content, answer in questions if "What is shown at second 11?" in str(content[1:])
    }
    assert {"blue screen"} <= answers <= {"blue screen", "blue screen (8)"}


@pytest.mark.parametrize("seed", range(20))
def test_clips_hold_together(seed: int) -> None:
    clip = videos.clip(random.Random(seed), (168, 112), [])
    assert len(clip.steps) == len(clip.seconds) == sum(scene.steps for scene in clip.scenes)
    assert len(clip.steps) <= videos.MOST_STEPS
    assert clip.spans[0][0] == clip.seconds[0]
    assert clip.spans[-1][1] == clip.seconds[-1]
    assert all(a.caption != b.caption for a, b in zip(clip.scenes, clip.scenes[1:], strict=False))
    shown = iter(clip.steps)
    for scene in clip.scenes:
        for step in (next(shown) for _ in range(scene.steps)):
            assert step.pixels.shape == (2, 112, 168, 3)
            assert [(s.kind, s.colour) for s in step.shapes] == [scene.shape] * bool(scene.shape)
            for shape in step.shapes:
                x1, y1, x2, y2 = shape.box
                assert 0 <= x1 < x2 <= 168
                assert 0 <= y1 < y2 <= 112
                r, g, b = step.pixels[0][int(shape.centre[1]), int(shape.centre[0])]
                wanted = pictures.COLOURS[shape.colour]
                assert sum(abs(int(v) - w) for v, w in zip((r, g, b), wanted, strict=True)) < 120


def test_frames_of_a_step_are_worn_alike() -> None:
    torch.manual_seed(0)
    still = torch.randint(0, 256, (64, 56, 84, 3), dtype=torch.uint8)
    steps = degrade(torch.stack((still, still), 1))
    assert steps.shape == (64, 2, 56, 84, 3)
    assert (steps[:, 0] - steps[:, 1]).mean((1, 2, 3)).abs().max() < 0.005  # noise alone
    assert (steps[:, 0] - still / 255).mean((1, 2, 3)).abs().max() > 0.05


# --- The shipped checkpoint ---


def test_checkpoint_is_what_the_training_writes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    checkpoint.save_files(tokenizer, tmp_path)
    names = {path.name for path in SHIPPED.iterdir()}
    assert names == {path.name for path in tmp_path.iterdir()} | {"model.safetensors"}
    for name in names - {"model.safetensors", "chat_template.jinja"}:
        shipped, made = (json.loads((f / name).read_text()) for f in (SHIPPED, tmp_path))
        shipped.pop("transformers_version", None)
        made.pop("transformers_version", None)
        assert shipped == made, name


def test_checkpoint_has_the_chat_template_of_the_package() -> None:
    assert (SHIPPED / "chat_template.jinja").read_bytes() == CHAT_TEMPLATE.read_bytes()


def test_checkpoint_holds_small_weights_for_every_parameter(tokenizer: Tokenizer) -> None:
    path = SHIPPED / "model.safetensors"
    assert path.stat().st_size <= LARGEST_WEIGHTS
    parameters = Model(checkpoint.config(tokenizer)).state_dict()
    with safe_open(path, "pt") as weights:
        held = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118  (no dict)
    assert {name: value.shape for name, value in held.items()} == {
        name: value.shape for name, value in parameters.items() if not name.startswith("helper.")
    }
    assert all(value.dtype == torch.bfloat16 for value in held.values())
    assert all(value.isfinite().all() for value in held.values())


def test_checkpoint_generates_greedily_until_one_of_four_tokens(tokenizer: Tokenizer) -> None:
    generation = transformers.GenerationConfig.from_pretrained(SHIPPED)
    assert generation.do_sample is False
    ends = [tokenizer.id_to_token(k) for k in generation.eos_token_id]
    assert ends == ["<|endoftext|>", "<|user|>", "<|observation|>", "</answer>"]
    assert ends == list(EOS_TOKENS)


def test_special_tokens_are_single_ids(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("".join(SPECIAL_TOKENS)).ids
    assert ids == [batches.token_id(tokenizer, token) for token in SPECIAL_TOKENS]
    assert len(set(ids)) == len(SPECIAL_TOKENS)


def test_unknown_token_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no token <none>"):
        batches.token_id(tokenizer, "<none>")


def test_reference_answers_and_stops() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    sample = Sample("talk", messages, "The user greets me.", dialogues.GREETING)
    assert Reference(SHIPPED)(sample) == sample.target


# --- The scores ---


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [("3.20", "3.20", 1), (" 3.20\n", "3.20", 1), ("3.2", "3.20", 0), ("", "3.20", 0)],
)
def test_exact(answer: str, truth: str, score: float) -> None:
    assert evaluate.exact(answer, truth) == score


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("Total", "Total", 1),
        ("Tota", "Total", 4 / 5),
        ("Totall", "Total", 4 / 5),
        ("Tobal", "Total", 4 / 5),
        ("otal!", "Total", 3 / 5),
        ("", "Total", 0),
        ("quite another text", "Total", 0),
        ("", "", 1),
        ("x", "", 0),
    ],
)
def test_characters(answer: str, truth: str, score: float) -> None:
    assert evaluate.characters(answer, truth) == pytest.approx(score)


BOX, OTHER = "[100,100,200,200]", "[500,500,900,900]"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (f"[{BOX},{OTHER}]", 1),
        (f"[{OTHER},{BOX}]", 1),
        (f"The boxes are [{BOX}, {OTHER}].", 1),
        (f"[[100,100,200,151],{OTHER}]", 1),  # IoU 0.51
        (f"[[100,100,200,149],{OTHER}]", 0),  # IoU 0.49
        (f"[[100,100,200,300],{OTHER}]", 1),  # IoU 0.5
        (f"[[150,100,250,200],{OTHER}]", 0),  # IoU 1/3
        (f"[{BOX},{BOX}]", 0),
        (f"[{BOX}]", 0),
        (f"[{BOX},{OTHER},{OTHER}]", 0),
        (f"[{BOX},[500,500]]", 0),
        (f"[{BOX},{OTHER}", 0),
        ("[[left,right]]", 0),
        ("There are none.", 0),
    ],
)
def test_overlap(answer: str, score: float) -> None:
    assert evaluate.overlap(answer, f"[{BOX},{OTHER}]") == score


def test_overlap_takes_each_box_once() -> None:
    assert evaluate.overlap(f"[{BOX},{OTHER}]", f"[{BOX},[100,100,200,190]]") == 0


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<think>I look.</think><answer>3.20</answer>", "3.20"),
        ("<answer>a<answer>b", "b"),
        ("<answer><|begin_of_box|>[[1,2,3,4]]<|end_of_box|></answer>", "[[1,2,3,4]]"),
        ("no mark", "no mark"),
    ],
)
def test_answer_is_cut_out_of_the_output(output: str, answer: str) -> None:
    assert evaluate.answer_of(output) == answer


def test_exercise_goes_over_the_wire_with_its_pictures_in_place() -> None:
    sample = asked(count=2)
    (message,) = evaluate.wire(sample)
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    for part, picture in zip(message["content"][1::2], sample.pictures, strict=True):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert (sent == picture.pixels).all()


@pytest.mark.parametrize("clip_seconds", [[0, 1, 2], [0, 4, 8]])
def test_clip_goes_over_the_wire_as_a_video_of_its_frames(clip_seconds: list[int]) -> None:
    drawn = next(
        clip
        for k in range(99)
        if len((clip := videos.clip(random.Random(k), (112, 112), [])).steps) == 3
    )
    clip = replace(drawn, seconds=clip_seconds)
    (message,) = evaluate.wire(ask("when", "When?", "", "", clip=clip))
    video, text = message["content"]
    assert text == {"type": "text", "text": "When?"}
    head, data = video["video_url"]["url"].split(",")
    assert (video["type"], head) == ("video_url", "data:video/mp4;base64")
    with av.open(io.BytesIO(base64.b64decode(data)), "r") as container:
        stream = container.streams.video[0]
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    assert stream.codec_context.name == "h264"
    assert [time for time, _ in frames] == [clip.stride * k / 2 for k in range(6)]
    sent = np.stack([pixels for _, pixels in frames]).astype(int)
    assert np.abs(sent - np.concatenate([step.pixels for step in clip.steps])).mean() < 6
