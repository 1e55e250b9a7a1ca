"""What libraries say on the way, which nobody asked for."""

import pytest


def test_ultralytics_shows_no_bar_of_cached_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics.data import base
    from ultralytics.utils.tqdm import TQDM

    from src.training.trainer import _show_no_bars

    monkeypatch.setattr(base, "TQDM", TQDM)
    assert list(base.TQDM(range(3), total=3, disable=False)) == [0, 1, 2]
    assert capsys.readouterr().out != "", "the bar that is to be kept off is gone by itself"
    _show_no_bars()
    assert list(base.TQDM(range(3), total=3, disable=False)) == [0, 1, 2]
    assert capsys.readouterr().out == ""
