"""The pure parts of transcription: attempts, checks, how many pages at once; and looks at pages."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.media import scan
from langchain_glm4v.server.metrics import Load
from langchain_glm4v.transcription import attempts, checks
from langchain_glm4v.transcription.attempts import Attempt, Reply
from langchain_glm4v.transcription.load import FIRST_LIMIT, PATIENCE, Pace, next_limit
from langchain_glm4v.transcription.records import Problem, Reading


def reply(text: str, *problems: Problem, confidence: float | None = 0.99) -> Reply:
    return Reply(
        text=text,
        problems=problems,
        confidence=confidence,
        model="glm",
        input_tokens=10,
        output_tokens=2,
        seconds=0.5,
    )


def attempted(
    replies: Sequence[Reply | None], *, finds_turn: bool = True
) -> tuple[list[Attempt], Reading]:
    """The attempts that are made if these are the replies, and what they come to."""
    steps = attempts.read(finds_turn=finds_turn)
    made = [next(steps)]
    for one in replies:
        try:
            made.append(steps.send(one))
        except StopIteration as over:
            return made, over.value
    raise AssertionError(f"there were {len(made)} attempts, and replies to {len(replies)}")


def test_good_text_is_taken_at_once() -> None:
    made, reading = attempted([reply("good")])
    assert made == [Attempt(0, None)]
    assert (reading.text, reading.attempts, reading.input_tokens) == ("good", 1, 10)


def test_temperatures_rise_until_a_text_is_good() -> None:
    made, reading = attempted([reply("half", "cut off"), reply("", "empty"), reply("good")])
    assert made == [Attempt(0, None), Attempt(0, 0.2), Attempt(0, 0.5)]
    assert (reading.text, reading.problems, reading.attempts) == ("good", (), 3)
    assert (reading.output_tokens, reading.seconds) == (6, 1.5)


def test_best_of_bad_texts_is_taken() -> None:
    bad = [
        reply("worst", "cut off", "script", confidence=0.99),
        reply("second", "cut off", confidence=0.91),
        reply("best", "cut off", confidence=0.95),
        reply("third", "script", confidence=0.9),
    ]
    made, reading = attempted(bad)
    assert len(made) == 4
    assert (reading.text, reading.problems) == ("best", ("cut off",))


def test_doubtful_page_is_turned_and_stays_so_if_that_is_better() -> None:
    doubtful = reply("?", confidence=0.5)
    made, reading = attempted([doubtful, doubtful, reply("good"), doubtful])
    assert [attempt.turn for attempt in made] == [0, 180, 90, 270]
    assert (reading.text, reading.turn, reading.attempts) == ("good", 90, 4)
    # A little more confidence is no reason to take a page for one on its head.
    _, reading = attempted([doubtful, reply("?!", confidence=0.53), doubtful, doubtful])
    assert reading.turn == 0


def test_page_is_not_turned_for_a_text_of_less_confidence() -> None:
    half = reply("much that stands there", "cut off", confidence=0.86)
    turned = [
        reply("zzz", confidence=0.22),
        reply("", "empty", confidence=0.99),
        reply("na na", "repetition", confidence=0.99),
    ]
    made, reading = attempted([half, *turned, half, half, half])
    assert [attempt.turn for attempt in made] == [0, 180, 90, 270, 0, 0, 0]
    assert (reading.text, reading.turn) == ("much that stands there", 0)


def test_half_a_text_is_better_than_none() -> None:
    half = reply("much", "cut off", "script", confidence=0.95)
    none = reply("", "empty", confidence=0.99)
    assert attempted([none, half, none, none])[1].text == "much"


def test_further_attempts_are_made_at_the_better_turn() -> None:
    worse = reply("?", "empty", "cut off", confidence=0.5)
    better = reply("half", "cut off", confidence=0.98)
    made, reading = attempted([worse, worse, worse, better, reply("good")])
    assert made[-1] == Attempt(270, 0.2)
    assert (reading.text, reading.turn) == ("good", 270)


def test_no_page_is_turned_unasked_or_without_a_reason() -> None:
    assert len(attempted([reply("?", confidence=0.5)], finds_turn=False)[0]) == 1
    assert len(attempted([reply("?", confidence=None)])[0]) == 1


def test_what_was_read_counts_though_a_later_attempt_fails() -> None:
    made, reading = attempted([reply("half", "cut off"), None])
    assert (len(made), reading.text, reading.problems) == (2, "half", ("cut off",))
    made, reading = attempted([reply("?", confidence=0.5), reply("better", confidence=0.9), None])
    assert (len(made), reading.text, reading.turn) == (3, "?", 0)


def test_limit_grows_while_the_server_keeps_up_and_shrinks_with_its_queue() -> None:
    limit = FIRST_LIMIT
    for _ in range(6):
        limit = next_limit(limit, limit, Load(running=limit, waiting=0), 128)
    assert limit == 128
    assert next_limit(128, 128, Load(running=60, waiting=68), 128) == 64
    # Requests that wait may be others'.
    assert next_limit(16, 4, Load(running=64, waiting=300), 128) == 1
    # Nothing is learnt from a server that could have had more.
    assert next_limit(16, 3, Load(running=3, waiting=0), 128) == 16


@given(
    limit=st.integers(1, 128),
    in_flight=st.integers(0, 200),
    running=st.integers(0, 1000),
    waiting=st.integers(0, 1000),
)
def test_limit_is_never_out_of_bounds(
    limit: int, in_flight: int, running: int, waiting: int
) -> None:
    assert 1 <= next_limit(limit, in_flight, Load(running=running, waiting=waiting), 128) <= 128


def refuse_down_to(pace: Pace, limit: int) -> int:
    """Let a server take so many requests of those made at once; returns how many may follow."""
    now = pace.resumes
    for others in reversed(range(limit, pace.limit)):
        assert pace.refused(now, others, 0)
    return pace.limit


def test_server_that_refuses_gets_as_many_requests_as_it_took() -> None:
    assert refuse_down_to(Pace(128), 10) == 10


def test_requests_are_at_most_halved_for_each_pause() -> None:
    pace = Pace(128)
    assert [refuse_down_to(pace, 0) for _ in range(5)] == [8, 4, 2, 1, 1]


def test_limit_grows_slowly_again_after_refusals() -> None:
    pace = Pace(128)
    assert [refuse_down_to(pace, 4) for _ in range(2)] == [8, 4]
    for answers, limit in ((15, 4), (1, 5), (19, 5), (1, 6), (1000, FIRST_LIMIT)):
        for _ in range(answers):
            pace.answered()
        assert pace.limit == limit


def test_what_a_server_tells_lifts_no_limit_that_its_refusals_set() -> None:
    pace = Pace(128)
    pace.told(Load(running=16, waiting=0), 16)
    assert pace.limit == 32
    pace.refused(0.0, 20, 0)
    pace.told(Load(running=20, waiting=0), 20)
    assert pace.limit == 20
    pace.told(Load(running=20, waiting=14), 20)
    assert pace.limit == 10


def test_pauses_grow_until_there_is_an_answer() -> None:
    pace = Pace(128)
    now, pauses = 100.0, []
    for _ in range(8):
        assert pace.refused(now, 3, 0)
        resumes = pace.resumes
        assert pace.refused(now + 0.1, 2, 0)  # of those that were made before the pause
        assert pace.resumes == resumes
        pauses.append(resumes - now)
        now = resumes
    for pause, least in zip(pauses, (0.5, 1, 2, 4, 8, 16, 30, 30), strict=True):
        assert least <= pause <= 1.25 * least
    pace.answered()
    assert pace.refused(now, 3, 0)
    assert pace.resumes - now < 1


def test_server_is_left_alone_for_as_long_as_it_wants() -> None:
    pace = Pace(128)
    assert pace.refused(100.0, 15, 20)
    assert pace.resumes == 120
    assert pace.refused(101.0, 14, 40)
    assert pace.resumes == 141
    assert pace.refused(102.0, 13, 3)
    assert pace.resumes == 141


def test_nobody_asks_for_ever() -> None:
    pace = Pace(128)
    now = 100.0
    while pace.refused(now, 0, 0):
        now = pace.resumes
    assert PATIENCE - 60 < now - 100 < PATIENCE
    assert not Pace(128).refused(100.0, 0, PATIENCE + 1)
    assert not Pace(128).refused(100.0, 0, float("inf"))
    # Whoever was answered in between is patient again.
    pace = Pace(128)
    for now in range(0, 3000, 100):
        assert pace.refused(now, 0, 300)
        pace.answered()


@pytest.mark.parametrize(
    ("text", "reason", "scripts", "found"),
    [
        ("Total: 5", "stop", (), ()),
        ("Total: 5", "length", (), ("cut off",)),
        ("Total: 5", "repetition", (), ("repetition",)),
        ("NA | " * 300, "stop", (), ("repetition",)),
        (" \n", "stop", (), ("empty",)),
        ("Total: 5", "stop", ["cjk"], ()),  # Latin letters stand everywhere
        ("合计：五元", "stop", ["cjk"], ()),
        ("合计：五元", "stop", ["latin"], ("script",)),
        ("Straße, café, ﬁn", "stop", ["latin"], ()),
        ("\uff21\uff22 \u4eba\u3005", "stop", ["cjk"], ()),
        ("ひらがな", "stop", ["hiragana", "cjk"], ()),
        ("12,5 %", "stop", ["cyrillic"], ()),
        ("", "length", ["cjk"], ("cut off", "empty")),
        ("half", "model_context_window_exceeded", [], ("cut off",)),
        ("half", "content_filter", [], ("broken off",)),
    ],
)
def test_problems(
    text: str, reason: str, scripts: Sequence[str], found: tuple[Problem, ...]
) -> None:
    assert checks.problems(text, reason, scripts=scripts) == found
    assert all(checks.EXPLAINED[problem] for problem in found)


@pytest.mark.parametrize(
    ("text", "pictured", "is_good"),
    [
        ("Written on a computer, and good.", 0.0, True),
        ("Written on a computer, and good.", 0.5, True),
        ("Written by another program, which read a scan.", 0.9, False),
        ("Page 3", 0.0, False),
        (" \n" * 40, 0.0, False),
        ("\x01\x02\x03 no mapping of its font \x04\x05\x06", 0.0, False),
        ("\N{REPLACEMENT CHARACTER}" * 30, 0.0, False),
        ("这是一份在电脑上写成的文件，文字层完好无损，可以直接使用。", 0.0, True),
    ],
)
def test_text_layers(text: str, pictured: float, is_good: bool) -> None:
    assert checks.is_good_layer(text, pictured) == is_good


def test_text_layer_in_another_script_than_expected_is_no_good_one() -> None:
    assert checks.is_good_layer("Российская Федерация, страница", 0.0, scripts=["cyrillic"])
    assert not checks.is_good_layer("Российская Федерация, страница", 0.0, scripts=["greek"])


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def grainy(noise: int, strength: float) -> Image.Image:
    """A4 with grain, which is drawn the same each time."""
    shades = np.random.default_rng(0).normal(128, noise, (1540, 1092)).clip(0, 255)
    grain = Image.fromarray(shades.astype(np.uint8)).convert("RGB")
    return Image.blend(Image.new("RGB", grain.size, (245, 243, 238)), grain, strength)


def paper() -> Image.Image:
    """A4 as a scanner sees it: grain, a shadow along one side, and what shows through."""
    page = grainy(12, 0.1)
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, 8, 1540), fill=(60, 60, 60))
    for line in range(20):
        text = "what stands on the other side of the sheet"
        font = ImageFont.load_default(28)
        pen.text((120, 200 + 50 * line), text, fill=(206, 204, 200), font=font)
    return page


def printed(
    text: str = "Light print on a page, as of a thermal printer.",
    fill: tuple[int, int, int] = (0, 0, 0),
    ground: tuple[int, int, int] = (255, 255, 255),
    *,
    size: int = 18,
    lines: int = 40,
) -> Image.Image:
    """A4 in 1540 pixels, where 18 are 10 points."""
    page = Image.new("RGB", (1092, 1540), ground)
    for line in range(lines):
        font = ImageFont.load_default(size)
        ImageDraw.Draw(page).text((120, 140 + 33 * line), text, fill=fill, font=font)
    return page


def dusty(noise: int) -> Image.Image:
    """Blank paper of much grain with dust, and a shadow that grows towards one side."""
    page = grainy(noise, 0.2)
    pen = ImageDraw.Draw(page)
    for speck in range(30):
        x, y, size = 100 + 29 * speck, 100 + 40 * speck, speck % 3
        pen.rectangle((x, y, x + size, y + size), fill=(40, 40, 40))
    shade = Image.linear_gradient("L").rotate(90).resize((200, 1540)).point(lambda s: s * 2 // 3)
    page.paste((60, 60, 60), (892, 0), shade)
    return page


def is_blank(page: Image.Image) -> bool:
    return scan.is_blank(jpeg(page), "a page")


def test_blank_pages_are_told_from_those_with_a_number() -> None:
    assert is_blank(Image.new("RGB", (560, 784), "white"))
    assert is_blank(Image.new("L", (560, 784), "black"))
    assert is_blank(paper())
    for size in (20, 28, 60):
        page = paper()
        pen = ImageDraw.Draw(page)
        pen.text((540, 1440), "17", fill=(40, 40, 40), font=ImageFont.load_default(size))
        assert not is_blank(page)
    white_on_black = Image.new("RGB", (560, 784), "black")
    ImageDraw.Draw(white_on_black).text((99, 99), "No", font=ImageFont.load_default(28))
    assert not is_blank(white_on_black)


@pytest.mark.parametrize("noise", [10, 50, 100])
def test_grain_dust_and_shadows_leave_a_page_blank(noise: int) -> None:
    assert is_blank(dusty(noise))


@pytest.mark.parametrize(
    "page",
    [
        *(printed(fill=(shade, shade, shade)) for shade in (0xB3, 0xCC, 0xD9)),
        *(printed(fill=fill) for fill in ((255, 165, 0), (255, 255, 0), (173, 216, 230))),
        printed(fill=(180, 180, 180), ground=(235, 235, 235)),
        printed("7", size=22, lines=1),
        printed("7", (0xB3, 0xB3, 0xB3), size=22, lines=1),
    ],
    ids=["b3", "cc", "d9", "orange", "yellow", "light blue", "receipt", "seven", "light seven"],
)
def test_light_print_and_little_of_it_is_no_blank_page(page: Image.Image) -> None:
    assert not is_blank(page)


@pytest.mark.parametrize("size", [(1092, 1540), (784, 1092), (560, 784)])
def test_a_page_may_be_shown_smaller(size: tuple[int, int]) -> None:
    number = printed("7", size=18, lines=1)
    assert not is_blank(number.resize(size, Image.Resampling.BOX))
    assert is_blank(dusty(30).resize(size, Image.Resampling.BOX))


def test_hairline_is_no_blank_page() -> None:
    page = Image.new("L", (3 * 1092, 3 * 1540), 255)
    ImageDraw.Draw(page).arc((1500, 3600, 2400, 4200), 200, 340, fill=60, width=3)
    assert not is_blank(page.resize((1092, 1540), Image.Resampling.BOX))


@pytest.mark.parametrize(
    ("turn", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (270, (0, 1))]
)
def test_pages_are_turned_clockwise(turn: scan.Turn, corner: tuple[int, int]) -> None:
    page = Image.new("RGB", (80, 120), "white")
    page.paste("black", (0, 0, 40, 40))
    with Image.open(io.BytesIO(scan.turned(jpeg(page), turn, "a page"))) as turned:
        assert turned.size == ((80, 120) if turn % 180 == 0 else (120, 80))
        at = [place * (side - 1) for place, side in zip(corner, turned.size, strict=True)]
        assert turned.convert("L").getpixel((at[0], at[1])) < 50  # type: ignore[operator]


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(UnsupportedMediaError, match="page 3 is not a picture"):
        scan.is_blank(b"no picture", "page 3")
    with pytest.raises(UnsupportedMediaError, match="page 3 is not a picture"):
        scan.turned(jpeg(Image.new("L", (99, 99)))[:-200], 90, "page 3")
