"""Which data and weights a training starts from: settled once, said loudly, never swapped."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from src import checkpoints, inputs
from src.download import DownloadError
from src.files import sha256
from src.inputs import PRETRAINED_URL, InputsError, settle
from src.settings import Settings

MakeSettings = Callable[..., Settings]
REAL_LOAD = checkpoints.load


class Network:
    """Stands in for ``fetch``: serves every address but those cut off, unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.cut: set[str] = set()
        self.content = b"detect"
        self.asked: list[str] = []

    def fetch(self, url: str, target: Path) -> Path:
        self.asked.append(url)
        if self.down or url in self.cut:
            raise DownloadError(f"{url}: no connection")
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.content + b" " + url.encode())
        return target


def stub_load(weights: Path) -> SimpleNamespace:
    """Load a checkpoint whose first word is its task; no other loads."""
    task = Path(weights).read_text().split()[0]
    if task not in ("detect", "classify"):
        raise checkpoints.CheckpointError("does not load as a YOLO checkpoint")
    return SimpleNamespace(task=task)


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(inputs, "fetch", network.fetch)
    monkeypatch.setattr(inputs, "RECORD", tmp_path / "state" / "inputs.json")
    monkeypatch.setattr(inputs, "DOWNLOADS", tmp_path / "state" / "downloads")
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "state" / "weights")
    monkeypatch.setattr(checkpoints, "load", stub_load)
    return network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "my weights.pt"
    file.write_text("detect people")
    return file


def said(found: inputs.Inputs) -> str:
    return "\n".join(found.notices)


def test_photos_and_pretrained_weights_where_both_can_be_had(settings: Settings) -> None:
    found = settle(settings)
    assert (found.dataset, found.pretrained, found.notices) == ("coco128", True, [])
    assert Path(found.model).read_bytes() == Path(found.weights).read_bytes()
    assert Path(found.model).name == f"{found.weights_sha256}.pt"
    assert found.weights_name == "yolov8n.pt"
    assert found.weights_sha256 == sha256(Path(found.weights))
    assert found.recipe_suffix == ""


@pytest.mark.parametrize("missing", [PRETRAINED_URL, "photos"])
def test_drawn_people_from_scratch_where_either_cannot(
    settings: Settings, network: Network, missing: str
) -> None:
    network.cut = {settings.coco128_url if missing == "photos" else missing}
    found = settle(settings)
    assert (found.dataset, found.pretrained) == ("synthetic", False)
    assert (found.model, found.weights_sha256) == ("yolov8n.yaml", "scratch")
    assert found.recipe_suffix == "_scratch"
    assert "SYNTHETIC" in said(found)
    assert "FROM SCRATCH" in said(found)


def test_the_notices_are_said_each_time(
    settings: Settings, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.down = True
    settle(settings)
    settle(settings).announce()
    out, err = capsys.readouterr()
    assert out == ""
    assert "*** DATASET: SYNTHETIC" in err
    assert "*** WEIGHTS: training starts FROM SCRATCH" in err


def test_the_decision_stays_when_the_network_comes_back(
    settings: Settings, network: Network
) -> None:
    network.down = True
    first = settle(settings)
    network.down = False
    network.asked.clear()
    assert settle(settings) == first
    assert network.asked == []


def test_the_decision_stays_when_the_network_goes(settings: Settings, network: Network) -> None:
    first = settle(settings)
    network.down = True
    assert settle(settings) == first


def test_what_was_brought_along_stays_without_a_network(
    make_settings: MakeSettings, network: Network, checkpoint: Path
) -> None:
    """`make baseline COCO128_URL=… WEIGHTS=…` on a machine without one, then `make grid`."""
    stick = make_settings(weights=str(checkpoint), coco128_url="file:///stick/coco128.zip")
    network.cut = {PRETRAINED_URL, make_settings().coco128_url}
    brought = settle(stick)
    for _ in range(2):
        found = settle(make_settings(), "coco128")
        assert (found.dataset, found.weights_sha256) == ("coco128", brought.weights_sha256)
        assert found.weights_name == brought.weights_name
        assert "staying with my weights.pt" in said(found)
        checkpoint.unlink(missing_ok=True)  # the stick is pulled out
    assert settle(make_settings(weights="scratch"), "coco128").pretrained is False


@pytest.mark.parametrize("dataset", ["auto", "synthetic"])
def test_what_your_own_data_start_from_stays_without_a_network_too(
    make_settings: MakeSettings, network: Network, checkpoint: Path, dataset: str
) -> None:
    """`DATASET` served the first time only: what .env names since is another set's."""
    network.cut = {PRETRAINED_URL}
    settle(make_settings(weights=str(checkpoint)), "imported")
    found = settle(make_settings(dataset=dataset), "imported")
    assert (found.dataset, found.weights) == ("imported", str(checkpoint))


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "synthetic"},
        {"weights": "scratch"},
        {"coco128_url": "https://example.org/z.zip"},
    ],
)
def test_changed_settings_are_settled_anew(
    settings: Settings, make_settings: MakeSettings, changes: dict[str, str]
) -> None:
    first = settle(settings)
    assert settle(make_settings(**changes)).settled_for != first.settled_for
    assert settle(settings) == first


@pytest.mark.parametrize("torn", [b"", b"{", b"\xff"])
def test_a_damaged_record_is_settled_anew(settings: Settings, torn: bytes) -> None:
    first = settle(settings)
    inputs.RECORD.write_bytes(torn)
    assert settle(settings) == first


def test_photos_that_are_built_already_need_no_network(
    settings: Settings, network: Network
) -> None:
    network.cut = {settings.coco128_url}
    assert settle(settings, built="coco128").dataset == "coco128"


def test_a_checkpoint_of_ones_own(make_settings: MakeSettings, checkpoint: Path) -> None:
    found = settle(make_settings(weights=str(checkpoint)))
    assert found.weights == str(checkpoint)
    assert (found.dataset, found.notices) == ("coco128", [])


def test_a_checkpoint_of_ones_own_without_photos(
    make_settings: MakeSettings, checkpoint: Path, network: Network
) -> None:
    network.down = True
    found = settle(make_settings(weights=str(checkpoint)))
    assert (found.dataset, found.weights) == ("synthetic", str(checkpoint))
    assert found.recipe_suffix == "_scratch"
    assert "SYNTHETIC" in said(found)


def test_a_checkpoint_that_is_missing_is_an_error(make_settings: MakeSettings) -> None:
    with pytest.raises(InputsError, match=r"WEIGHTS=/missing\.pt: no such file"):
        settle(make_settings(weights="/missing.pt"))
    assert not inputs.RECORD.exists()


def test_a_checkpoint_behind_an_address_that_nobody_answers_is_an_error(
    make_settings: MakeSettings, network: Network
) -> None:
    network.down = True
    with pytest.raises(InputsError, match=r"WEIGHTS: https://example\.org/w\.pt: no connection"):
        settle(make_settings(weights="https://example.org/w.pt"))


def test_weights_of_another_address_are_other_weights(make_settings: MakeSettings) -> None:
    one = settle(make_settings(weights="https://one.example.org/best.pt"))
    two = settle(make_settings(weights="https://two.example.org/best.pt"))
    assert one.weights_sha256 != two.weights_sha256


def test_photos_of_another_address_are_other_photos(make_settings: MakeSettings) -> None:
    one = inputs.photos(make_settings(coco128_url="https://one.example.org/coco128.zip"))
    content = one.read_bytes()
    two = inputs.photos(make_settings(coco128_url="https://two.example.org/coco128.zip"))
    assert two.read_bytes() != content


@pytest.mark.parametrize("content", ["garbage", "classify birds"])
def test_weights_that_are_no_detector_are_an_error(
    make_settings: MakeSettings, checkpoint: Path, content: str
) -> None:
    checkpoint.write_text(content)
    with pytest.raises(InputsError, match=r"^WEIGHTS: .*my weights\.pt"):
        settle(make_settings(weights=str(checkpoint)))
    assert not inputs.RECORD.exists()
    assert checkpoint.is_file()


@pytest.mark.parametrize("name", ["my weights.pt", "README.md", "no-suffix"])
def test_the_real_loader_refuses_garbage(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(checkpoints, "load", REAL_LOAD)
    (tmp_path / name).write_text("garbage")
    with pytest.raises(InputsError, match="does not load as a YOLO checkpoint"):
        settle(make_settings(weights=str(tmp_path / name)))


def test_a_download_that_does_not_load_is_fetched_anew_next_time(
    settings: Settings, network: Network
) -> None:
    network.content = b"<html>"  # as a hotel's sign-in page answers
    with pytest.raises(InputsError):
        settle(settings)
    network.content = b"detect"
    assert settle(settings).pretrained


def test_from_scratch_when_asked_for_is_no_surprise(make_settings: MakeSettings) -> None:
    found = settle(make_settings(weights="scratch", dataset="synthetic"))
    assert (found.dataset, found.pretrained, found.notices) == ("synthetic", False, [])
    assert found.weights_name == "random (from scratch)"


def test_from_scratch_draws_people_unless_photos_are_asked_for(
    make_settings: MakeSettings,
) -> None:
    found = settle(make_settings(weights="scratch"))
    assert found.dataset == "synthetic"
    assert "SYNTHETIC" in said(found)


def test_photos_from_scratch_are_warned_of(make_settings: MakeSettings, network: Network) -> None:
    network.cut = {PRETRAINED_URL}
    found = settle(make_settings(dataset="coco128"))
    assert (found.dataset, found.pretrained, found.recipe_suffix) == ("coco128", False, "_scratch")
    assert "40 photos can't teach" in said(found)
    assert "FROM SCRATCH" in said(found)


def test_drawn_people_when_asked_for_keep_pretrained_weights(make_settings: MakeSettings) -> None:
    found = settle(make_settings(dataset="synthetic"))
    assert (found.dataset, found.pretrained, found.notices) == ("synthetic", True, [])


def test_a_checkpoint_that_was_replaced_is_noticed(
    make_settings: MakeSettings, checkpoint: Path
) -> None:
    settings = make_settings(weights=str(checkpoint))
    first = settle(settings)
    checkpoint.write_text("detect more")
    assert settle(settings).weights_sha256 == sha256(checkpoint) != first.weights_sha256
    checkpoint.write_text("garbage")
    with pytest.raises(InputsError, match="does not load"):
        settle(settings)


def test_the_record_is_readable_by_nobody_else(
    settings: Settings, mode_of: Callable[[Path], str]
) -> None:
    settle(settings)
    assert mode_of(inputs.RECORD) == "600"


def test_weights_of_any_name_are_used_from_the_kept_copy(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    odd = tmp_path / "it's mine" / "weights (1).bin"
    odd.parent.mkdir()
    odd.write_text("detect people")
    found = settle(make_settings(weights=str(odd)))
    assert found.model == str(checkpoints.kept(sha256(odd)))
    Path(found.model).write_text("detect cats")
    assert Path(settle(make_settings(weights=str(odd))).model).read_text() == "detect people"


def test_weights_that_were_refused_are_not_kept(
    make_settings: MakeSettings, checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint.write_text("garbage")
    with pytest.raises(InputsError):
        settle(make_settings(weights=str(checkpoint)))
    assert list(checkpoints.FOLDER.iterdir()) == []
