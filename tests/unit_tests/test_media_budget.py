"""What media cost, against the processors of the model."""

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media.budget import (
    DEFAULT_IMAGE_TOKENS,
    MAX_ASPECT,
    image_size,
    image_tokens,
    video_tokens,
)

# Makes torchvision importable, which the processors need.
importlib.import_module("training.reference")
images: Any = importlib.import_module("transformers.models.glm4v.image_processing_glm4v")
videos: Any = importlib.import_module("transformers.models.glm4v.video_processing_glm4v")

# `size.longest_edge` in the files of the released model.
IMAGE_PIXELS = 9_633_792
VIDEO_PIXELS = 47_040_000

sides = st.one_of(st.integers(1, 120), st.integers(1, 12_000))


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (640, 480, 391),
        (1280, 720, 1196),
        (1920, 1080, 2691),
        (1080, 2400, 3354),
        (1654, 2339, 4956),
        (3840, 2160, 6032),
        (1092, 1540, 2145),
        (1, 1, 9),
    ],
)
def test_known_pictures(width: int, height: int, tokens: int) -> None:
    assert image_tokens(width, height) == image_tokens(height, width) == tokens


@pytest.mark.parametrize(
    ("frames", "tokens"), [(32, 29_184), (60, 28_980), (120, 27_840), (240, 27_720), (600, 27_300)]
)
def test_known_videos(frames: int, tokens: int) -> None:
    assert video_tokens(frames, 1920, 1080) == tokens


def cells(module: Any, frames: int, width: int, height: int, max_pixels: int) -> int | None:
    try:
        resized = module.smart_resize(frames, height, width, max_pixels=max_pixels)
    except ValueError:
        return None
    return int(resized[0] * resized[1] // 784)


@given(sides, sides, st.sampled_from([64, 1280, 6144]))
def test_pictures_as_the_model_resizes_them(width: int, height: int, limit: int) -> None:
    expected = cells(images, 2, width, height, limit * 1568)
    if expected is None:
        with pytest.raises(MediaError, match=f"{width}x{height} pixels"):
            image_tokens(width, height, max_tokens=limit)
    else:
        assert image_tokens(width, height, max_tokens=limit) == expected


@given(sides, sides, st.integers(16, 6144), st.none() | st.integers(28, 3000))
def test_sent_pictures_keep_to_their_limits(
    width: int, height: int, max_tokens: int, longest_side: int | None
) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        return
    try:
        sent = image_size(width, height, max_tokens=max_tokens, longest_side=longest_side)
    except MediaError:  # one of some pixels, whose shape the model's own rounding spoils
        assert cells(images, 2, width, height, IMAGE_PIXELS) is None
        return

    assert image_tokens(*sent) <= max_tokens
    assert max(sent) <= (longest_side or max(sent))
    assert sent == (width, height) or not any(side % 28 for side in sent)
    assert sent[::-1] == image_size(height, width, max_tokens=max_tokens, longest_side=longest_side)


@given(st.integers(1500, 5000), st.integers(1500, 5000))
def test_pictures_keep_their_shape_and_most_of_their_size(width: int, height: int) -> None:
    columns, rows = image_size(width, height)

    assert columns / rows == pytest.approx(width / height, rel=0.03)
    assert image_tokens(columns, rows) >= min(image_tokens(width, height), 5900)


def test_vllms_largest_picture_is_a_square() -> None:
    assert cells(images, 2, 9_999_999, 9_999_999, IMAGE_PIXELS) == DEFAULT_IMAGE_TOKENS == 78 * 78
    # So this one, left as it is, would not get into its cache.
    assert image_tokens(2688, 1792) > DEFAULT_IMAGE_TOKENS
    assert image_tokens(*image_size(2688, 1792)) <= DEFAULT_IMAGE_TOKENS


@given(st.integers(2, 700), sides, sides)
def test_videos_as_the_model_resizes_them(frames: int, width: int, height: int) -> None:
    expected = cells(videos, frames, width, height, VIDEO_PIXELS)
    if expected is None:
        with pytest.raises(MediaError, match=f"{width}x{height} pixels"):
            video_tokens(frames, width, height)
    else:
        assert video_tokens(frames, width, height) == (frames + 1) // 2 * expected


@given(st.integers(2, 700), st.integers(28, 4000), st.integers(28, 4000))
def test_videos_as_the_processor_counts_them(frames: int, width: int, height: int) -> None:
    processor = videos.Glm4vVideoProcessor()
    if max(width, height) <= 200 * min(width, height):
        patches = processor.get_num_of_video_patches(frames, height, width)
        assert video_tokens(frames, width, height) == patches // 4


@pytest.mark.parametrize("size", [(640, 480), (33, 1021), (9, 9), (3000, 2000)])
def test_the_image_processor_itself(size: tuple[int, int]) -> None:
    numpy: Any = importlib.import_module("numpy")
    limits = {"shortest_edge": 12_544, "longest_edge": IMAGE_PIXELS}
    processor = images.Glm4vImageProcessor(size=limits)
    grid = processor(numpy.zeros((size[1], size[0], 3), "uint8"))["image_grid_thw"]

    assert image_tokens(*size) == int(grid[0].prod()) // 4


def test_one_frame_is_no_video() -> None:
    with pytest.raises(MediaError, match="a single frame as a picture"):
        video_tokens(1, 640, 480)
