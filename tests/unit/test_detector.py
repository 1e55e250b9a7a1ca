"""The detector against what it stands in for: OpenCV, Ultralytics and torchvision themselves."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.champion.detector import (
    Detector,
    Fit,
    ParameterError,
    PictureError,
    Thresholds,
    TooManyPixels,
    UnknownFormat,
    decode,
    letterbox,
    resize,
    suppress,
)
from tests.unit import tiny_model

RNG = np.random.default_rng(0)


def noise(width: int, height: int) -> Image.Image:
    small = RNG.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def packed(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def odd_pictures() -> dict[str, bytes]:
    colour = noise(60, 41)
    found = {}
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"exif{turn}.jpg"] = packed(colour, "JPEG", exif=exif)
        found[f"exif{turn}.png"] = packed(colour, "PNG", exif=exif)
    alpha = colour.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(colour.size))
    deep = np.asarray(colour.convert("L")).astype(np.uint16) * 257
    found |= {
        "grey.jpg": packed(colour.convert("L"), "JPEG"),
        "grey.png": packed(colour.convert("L"), "PNG"),
        "alpha.png": packed(alpha, "PNG"),
        "alpha.webp": packed(alpha, "WEBP", lossless=True),
        "grey-alpha.png": packed(colour.convert("LA"), "PNG"),
        "palette.png": packed(colour.convert("P"), "PNG", transparency=3),
        "one-bit.png": packed(colour.convert("1"), "PNG"),
        "16-bit.png": packed(Image.fromarray(deep), "PNG"),
        "progressive.jpg": packed(colour, "JPEG", progressive=True, quality=60),
        "plain.bmp": packed(colour, "BMP"),
        "plain.tiff": packed(colour, "TIFF", compression="tiff_lzw"),
    }
    return found


ODD = odd_pictures()


@pytest.mark.parametrize("name", ODD)
def test_a_picture_is_read_as_ultralytics_reads_it(name: str, tmp_path: Path) -> None:
    from ultralytics.utils.patches import imread

    (tmp_path / name).write_bytes(ODD[name])
    theirs = imread(str(tmp_path / name))
    assert theirs is not None
    np.testing.assert_array_equal(decode(ODD[name]), theirs[:, :, ::-1])


def test_the_orientation_in_xmp_alone_is_not_applied() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    data = packed(noise(60, 40), "JPEG", xmp=xmp)
    assert decode(data).shape == (40, 60, 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_resize_is_opencvs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (height, width), (new_height, new_width) = rng.integers(1, 700, 2), rng.integers(1, 400, 2)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = resize(pixels, int(new_width), int(new_height)).astype(int)
    theirs = cv2.resize(pixels, (int(new_width), int(new_height))).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.01


def test_halving_is_opencvs_mean_of_four() -> None:
    pixels = RNG.integers(0, 256, (200, 120, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(pixels, 60, 100), cv2.resize(pixels, (60, 100)))


@pytest.mark.parametrize("shape", [(64, 64), (480, 640), (641, 479), (1, 300), (3000, 20), (33, 9)])
def test_the_letterbox_and_the_way_back_are_ultralytics(shape: tuple[int, int]) -> None:
    import torch
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = LetterBox((64, 64))(image=pixels).transpose(2, 0, 1)[None]
    assert np.abs(letterbox(pixels, 64) * 255 - theirs).max() <= 1.001
    boxes = RNG.uniform(-5, 70, (20, 4)).astype(np.float32)
    back = scale_boxes((64, 64), torch.from_numpy(boxes.copy()), shape).numpy()
    np.testing.assert_allclose(Fit(*shape, 64).back(boxes), back, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_the_suppression_is_torchvisions(seed: int) -> None:
    import torch
    from torchvision.ops import nms

    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (300, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), rng.uniform(0, 1, 300).astype(np.float32)
    theirs = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).numpy()
    np.testing.assert_array_equal(suppress(boxes, scores, 0.5, 1000), theirs)
    np.testing.assert_array_equal(suppress(boxes, scores, 0.5, 7), theirs[:7])


def test_a_box_comes_back_in_the_pictures_own_pixels(tmp_path: Path) -> None:
    detector = Detector.load(tiny_model.write(tmp_path))
    found = detector.detect(np.zeros((128, 256, 3), np.uint8))
    assert found.classes == ["person"]
    np.testing.assert_allclose(found.boxes, [[88, 4, 168, 124]], atol=0.1)
    assert not detector.detect(np.zeros((9, 9, 3), np.uint8), Thresholds(conf=0.95)).classes


def test_classes_that_do_not_count_are_left_out_by_the_best_score(tmp_path: Path) -> None:
    folder = tiny_model.write(tmp_path)
    (folder / "labels.json").write_text('{"1": "dog"}')
    assert not Detector.load(folder).detect(np.zeros((64, 64, 3), np.uint8)).classes


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", UnknownFormat),
        (b"hello", UnknownFormat),
        (b"/etc/passwd", UnknownFormat),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnknownFormat),
        (packed(noise(200, 200), "JPEG")[:600], PictureError),
        (packed(noise(200, 200), "PNG")[:-900], PictureError),
        (packed(noise(200, 200), "WEBP")[:200], PictureError),
        (packed(Image.new("1", (8000, 8000)), "PNG"), TooManyPixels),
        (packed(Image.new("1", (30000, 30000)), "PNG"), TooManyPixels),
        (packed(noise(9, 9).convert("F"), "TIFF"), PictureError),
        (packed(noise(9, 9), "GIF"), UnknownFormat),
    ],
)
def test_what_is_no_usable_picture_is_one_clear_error(data: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        decode(data)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "wrong",
    [{"conf": 1.1}, {"conf": float("nan")}, {"iou": -1}, {"max_det": 0}, {"max_det": 1001},
     {"max_det": 2.5}, {"conf": "0.5"}, {"iou": True}],
)  # fmt: skip
def test_a_parameter_outside_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        Thresholds(**wrong)  # type: ignore[arg-type]
