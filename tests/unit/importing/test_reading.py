"""Labels and pictures are read as Ultralytics reads them; markup as labelformat does."""

from __future__ import annotations

import importlib.util
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.datasets.importing import pictures
from src.datasets.importing.markup import parse_json, parse_xml, read_coco, read_cvat, read_voc
from src.datasets.importing.pictures import PictureFault, examine
from src.datasets.importing.yolo import Box, fit, read_labels, write_labels
from tests.unit.importing import cases

BOX = "0 0.5 0.5 0.2 0.2"
SIZE = (200, 100)  # px


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.effect_noise(SIZE, 60).save(file)
    return file


def trainer(photo: Path, content: bytes, classes: int, keypoints: tuple[int, int]) -> int | None:
    """Return how many boxes Ultralytics takes from a label file, None when it refuses it."""
    from ultralytics.data.utils import verify_image_label

    label = photo.with_suffix(".txt")
    label.write_bytes(content)
    found = verify_image_label((str(photo), str(label), "", False, classes, *keypoints, False))
    return None if found[0] is None else len(found[1])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", BOX.encode(), f"{BOX}\n{BOX}\n".encode(), b"\xef\xbb\xbf" + BOX.encode(),
        f"{BOX}\r\n1 0.3 0.3 0.1 0.1\r\n".encode(), BOX.replace(" ", "\t").encode(),
        b"0.0 .5 5e-1 0.2 +0.2", b"1.0 0.5 0.5 0.2 0.2", b"0.5 0.5 0.5 0.2 0.2",
        b"-1 0.5 0.5 0.2 0.2",
        b"3 0.5 0.5 0.2 0.2", b"2 0.5 0.5 0.2 0.2", f"{BOX} 0.9".encode(), b"0 0.5 0.5 0.2",
        b"cat 0.5 0.5 0.2 0.2", b"0 0.1 0.1 0.5 0.1 0.5 0.5", b"0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5",
        f"0 0.1 0.1 0.5 0.1 0.5 0.5\n{BOX}".encode(), b"0 0.1 0.1 0.5 0.1 0.5 0.5 0.7",
        b"0 100 50 20 20", b"0 0.5 0.5 -0.2 0.2", b"0 0,5 0,5 0,2 0,2", b"\xff\xfe0\x00 \x00",
        "0 0.5 0.5 0.2 0.2 # Größe".encode(), b"caf\xe9", f"{BOX}\x0b1 0.3 0.3 0.1 0.1".encode(),
        f"{BOX}\u20281 0.3 0.3 0.1 0.1".encode(), b"0 0.5 0.5 0.2 0.2\0",
    ],
)  # fmt: skip
def test_a_label_file_is_taken_as_ultralytics_takes_it(photo: Path, content: bytes) -> None:
    labels = read_labels(content, 3)
    ours = None
    if not labels.faults and all(fit(box, *SIZE)[0] for box in labels.boxes):
        ours = len({tuple(np.float32(value) for value in box) for box in labels.boxes})
    assert ours == trainer(photo, content, 3, (0, 0))


@pytest.mark.parametrize(
    "content",
    [b"0 nan 0.5 0.2 0.2", b"0 0.5 0.5 0 0.2", b"0 0.99 0.5 0.2 0.2", b"0 inf 0.5 0.2 0.2"],
)
def test_what_ultralytics_takes_but_nobody_can_mean_is_refused(content: bytes) -> None:
    labels = read_labels(content, 3)
    assert labels.faults or fit(labels.boxes[0], *SIZE)[0] is None


@pytest.mark.parametrize(("points", "dims"), [(2, 3), (3, 2)])
def test_a_pose_gives_its_box(photo: Path, points: int, dims: int) -> None:
    content = f"{BOX} {' '.join(['0.4'] * points * dims)}\n".encode()
    labels = read_labels(content, 3, points * dims)
    assert (len(labels.boxes), labels.keypoints) == (1, 1)
    assert trainer(photo, content, 3, (points, dims)) == 1


def test_every_fault_has_its_line() -> None:
    text = f"{BOX}\n\n0 0.5 0.5 0.2\n{BOX}\n9 0.5 0.5 0.2 0.2\n"
    assert [fault[0] for fault in read_labels(text.encode(), 3).faults] == [3, 5]


@pytest.mark.parametrize(
    ("edges", "kept"),
    [
        ((0, 0, 200, 100), True), ((-0.9, 0, 50, 50), True), ((-1.1, 0, 50, 50), False),
        ((150, 50, 200.9, 100.9), True), ((150, 50, 150, 60), False), ((0, -3, 20, 20), False),
        ((-0.9, 10, -0.2, 20), False),
    ],
)  # fmt: skip
def test_a_box_is_clipped_within_a_pixel(edges: tuple[float, ...], kept: bool) -> None:
    left, top, right, bottom = edges
    box: Box = (
        0, (left + right) / 400, (top + bottom) / 200, (right - left) / 200, (bottom - top) / 100
    )  # fmt: skip
    found, _ = fit(box, *SIZE)
    assert (found is not None) == kept
    if found:
        _, x, y, w, h = found
        assert min(x - w / 2, y - h / 2, 1 - x - w / 2, 1 - y - h / 2) >= -1e-6


def test_written_labels_keep_a_tiny_box() -> None:
    box: Box = (0, 0.123456789, 0.5, 1.2e-7, 0.3)
    (again,) = read_labels(write_labels([box]).encode(), 1).boxes
    assert again == pytest.approx(box, rel=1e-7)


# --- pictures -----------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


NOISE = Image.effect_noise((64, 48), 70).convert("RGB")
PICTURES = {
    "a.jpg": encoded(NOISE, "JPEG"),
    "grey.jpg": encoded(NOISE.convert("L"), "JPEG"),
    "cmyk.jpg": encoded(NOISE.convert("CMYK"), "JPEG"),
    "progressive.jpg": encoded(NOISE, "JPEG", progressive=True),
    "a.png": encoded(NOISE, "PNG"),
    "bits.png": encoded(NOISE.convert("1"), "PNG"),
    "deep.png": encoded(Image.fromarray(np.full((48, 64), 30000, np.uint16)), "PNG"),
    "palette.png": encoded(NOISE.quantize(8), "PNG"),
    "alpha.png": encoded(NOISE.convert("RGBA"), "PNG"),
    "a.bmp": encoded(NOISE, "BMP"),
    "a.tif": encoded(NOISE, "TIFF"),
    "pages.tif": encoded(NOISE, "TIFF", save_all=True, append_images=[NOISE]),
    "deep.tif": encoded(Image.fromarray(np.full((48, 64), 30000, np.uint16)), "TIFF"),
    "float.tif": encoded(Image.fromarray(np.full((48, 64), 0.5, np.float32)), "TIFF"),
    "a.webp": encoded(NOISE, "WEBP"),
    "moving.webp": encoded(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]),
    "moving.png": encoded(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(90)]),
    "a.jp2": encoded(NOISE, "JPEG2000"),
    "a.avif": encoded(NOISE, "AVIF"),
    "two.mpo": encoded(NOISE, "MPO", save_all=True, append_images=[NOISE]),
    "png.jpg": encoded(NOISE, "PNG"),
    "gif.jpg": encoded(NOISE, "GIF"),
    "ico.png": encoded(NOISE, "ICO"),
    "pdf.jpg": b"%PDF-1.4\n" + b"x" * 500,
    "text.jpg": b"hello",
    "none.jpg": b"",
    "cut.jpg": encoded(NOISE, "JPEG")[:-400],
    "cut.png": encoded(NOISE, "PNG")[:-400],
    "bad sum.png": encoded(NOISE, "PNG")[:-20] + b"0123456789abcdefghij",
    "tail.jpg": encoded(NOISE, "JPEG") + b"more",
    "small.png": encoded(NOISE.resize((9, 40)), "PNG"),
    "ten.png": encoded(NOISE.resize((10, 10)), "PNG"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_taken_as_ultralytics_takes_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader must take what we take and decode it to the size that we say."""
    from ultralytics.data.utils import check_image
    from ultralytics.utils.patches import imread

    try:
        found = examine(PICTURES[name])
    except PictureFault as fault:
        assert fault.what and fault.remedy
        found = None
    file = tmp_path / name
    file.write_bytes((found and found.content) or PICTURES[name])
    try:
        said, (height, width) = check_image(str(file))
        decoded = imread(file)
    except Exception:
        said, decoded = "", None
    if name == "cut.jpg":
        # Ultralytics fills what is missing with grey or stops the training; we refuse it.
        assert found is None
        return
    assert (found is not None) == (decoded is not None)
    if found and decoded is not None:
        assert said == ""  # nothing to restore, which would change the version
        assert decoded.shape[:2] == (height, width) == (found.height, found.width)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_it_is_displayed(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    found = examine(encoded(NOISE, kind, exif=exif))
    assert (found.width, found.height) == ((48, 64) if orientation > 4 else (64, 48))
    assert bool(found.content) == (orientation > 1)
    if found.content:
        with Image.open(io.BytesIO(found.content)) as image:
            assert image.size == (found.width, found.height)
            assert image.getexif().get(274, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation: int) -> None:
    stored = np.zeros((48, 64), np.uint8)
    stored[8:20, 40:60] = 255
    exif = Image.Exif()
    exif[274] = orientation
    found = examine(encoded(Image.fromarray(stored), "PNG", exif=exif))
    with Image.open(io.BytesIO(found.content or encoded(Image.fromarray(stored), "PNG"))) as image:
        ys, xs = np.nonzero(np.asarray(image) > 128)
        w, h = image.size
    left, top, right, bottom = pictures.turn(orientation)(40 / 64, 8 / 48, 60 / 64, 20 / 48)
    edges = (left * w, top * h, right * w, bottom * h)
    assert edges == pytest.approx((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))


def test_a_huge_picture_is_refused_before_it_is_decoded() -> None:
    content = bytearray(encoded(NOISE, "PNG"))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    with pytest.raises(PictureFault, match="pixels, which Ultralytics refuses"):
        examine(bytes(content))


def test_a_photo_of_an_iphone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PictureFault, match="HEIC"):
        examine(b"\0\0\0\x18ftypheic" + b"\0" * 100)


# --- markup, beside labelformat -----------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("labelformat") is None, reason="labelformat: make lint installs it"
)
@pytest.mark.parametrize("layout", [cases.coco_single, cases.voc_beside, cases.cvat_xml])
def test_sound_markup_is_read_as_labelformat_reads_it(tmp_path: Path, layout: object) -> None:
    from labelformat.formats.coco import COCOObjectDetectionInput
    from labelformat.formats.cvat import CVATObjectDetectionInput
    from labelformat.formats.pascalvoc import PascalVOCObjectDetectionInput

    case = cases.make(tmp_path, layout, [])  # type: ignore[arg-type]
    assert case
    ours: dict[str, list[tuple[object, ...]]] = {}
    if layout is cases.coco_single:
        file = tmp_path / "annotations.json"
        read = read_coco(parse_json(file.read_bytes(), file.name), file.name)
        theirs = list(COCOObjectDetectionInput(file).get_labels())
        for entry in read.entries:
            ours[entry.file] = [(read.names[box[0]], *box[1:5]) for box in entry.boxes]
    elif layout is cases.cvat_xml:
        file = tmp_path / "annotations.xml"
        read = read_cvat(parse_xml(file.read_bytes(), file.name), file.name)
        theirs = list(CVATObjectDetectionInput(file).get_labels())
        for entry in read.entries:
            ours[entry.file] = [(read.names[box[0]], *box[1:5]) for box in entry.boxes]
    else:
        theirs = []
        for folder in ("train", "val", "test"):
            source = PascalVOCObjectDetectionInput(tmp_path / folder, ",".join(cases.NAMES))
            theirs += list(source.get_labels())
        numbers: dict[str, int] = {}
        for file in tmp_path.rglob("*.xml"):
            entry, _ = read_voc(parse_xml(file.read_bytes(), file.name), file.stem, numbers)
            titles = list(numbers)
            ours[entry.file] = [(titles[box[0]], *box[1:5]) for box in entry.boxes]
    assert len(theirs) == len(ours) == len(case.items)
    for label in theirs:
        boxes = [
            (o.category.name, o.box.xmin, o.box.ymin, o.box.xmax, o.box.ymax) for o in label.objects
        ]
        mine = ours[label.image.filename]
        assert [box[0] for box in mine] == [box[0] for box in boxes]
        for one, other in zip(mine, boxes, strict=True):
            assert all(math.isclose(a, b) for a, b in zip(one[1:], other[1:], strict=True))  # type: ignore[arg-type]
