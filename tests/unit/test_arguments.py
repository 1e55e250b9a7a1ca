"""Which training arguments a recipe may hold, against Ultralytics' own list."""

from typing import Any

import pytest
import yaml

from src.training import arguments
from src.training.arguments import ACCEPTED, REFUSED, UniqueKeys, faults, safe_name

RECIPE = {"epochs": 3, "imgsz": 320, "batch": 8, "seed": 0, "optimizer": "AdamW"}


def fault(**given: Any) -> str:
    (found,) = faults(RECIPE | given)
    return found


def test_each_argument_of_ultralytics_is_accepted_or_refused() -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    assert DEFAULT_CFG_DICT.keys() - ACCEPTED - REFUSED.keys() == set()
    assert (ACCEPTED | REFUSED.keys()) - DEFAULT_CFG_DICT.keys() == {"save_dir"}
    assert ACCEPTED & REFUSED.keys() == set()


def test_each_accepted_argument_takes_ultralytics_default() -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    ours = ("epochs", "imgsz", "batch", "seed", "optimizer", "channels_last")
    for name in sorted(ACCEPTED - set(ours)):
        assert faults(RECIPE | {name: DEFAULT_CFG_DICT[name]}) == [], name


def test_what_is_accepted_ultralytics_accepts_too() -> None:
    from ultralytics.cfg import get_cfg

    least = {name: 1 for name in arguments.LEAST} | {"imgsz": 32}
    numbers = dict.fromkeys(arguments.NUMBERS, 0.5)
    switches = dict.fromkeys(arguments.SWITCHES, True)
    for optimizer in arguments.CHOICES["optimizer"][1:]:
        recipe = least | numbers | switches | {"optimizer": optimizer, "freeze": [0, "22.cv2"]}
        recipe |= {"fraction": 0.5, "scale": [0.5, 1.5], "compile": False, "cache": "ram"}
        assert faults(recipe) == []
        get_cfg(overrides=recipe)


def test_every_optimizer_can_be_built() -> None:
    from types import SimpleNamespace

    import torch
    from ultralytics.engine.trainer import BaseTrainer

    trainer = SimpleNamespace(args=SimpleNamespace(), data={"nc": 1})
    network = torch.nn.Module()
    network.model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for name in arguments.CHOICES["optimizer"][1:]:
        BaseTrainer.build_optimizer(trainer, network, name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_argument_comes_with_the_reason(name: str) -> None:
    found = fault(**{name: 1})
    assert found in (f"{name} can't be set: {REFUSED[name]}", f"{name} is set by the trainer")


@pytest.mark.parametrize(
    "name",
    ["conf", "iou", "max_det", "classes", "nms", "augment", "single_cls", "time", "cfg",
     "distill_model", "format"],
)  # fmt: skip
def test_what_would_move_the_ruler_is_refused(name: str) -> None:
    assert name in REFUSED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "Foo"),
        ("optimizer", True),
        ("freeze", "all"),
        ("freeze", -1),
        ("freeze", [True]),
        ("warmup_epochs", -1),
        ("lr0", True),
        ("lr0", "fast"),
        ("lr0", None),
        ("lr0", float("nan")),
        ("momentum", 7),
        ("cos_lr", "yes"),
        ("cache", "disk"),
        ("cache", 1),
        ("fraction", 0),
        ("scale", [2, 1]),
        ("compile", "fast"),
        ("patience", -1),
        ("epochs", 1.5),
        ("epochs", True),
        ("imgsz", 100),
        ("nbs", 0),
    ],
)
def test_a_value_that_would_fail_in_the_middle_is_refused(name: str, value: object) -> None:
    assert fault(**{name: value}).startswith(f"{name}=")


@pytest.mark.parametrize("recipe", [{"optimizer": "auto"}, {"optimizer": None}])
def test_what_the_automatic_optimizer_ignores_is_refused(recipe: dict[str, Any]) -> None:
    bare = {k: v for k, v in (RECIPE | recipe).items() if v is not None}
    assert faults(bare) == []
    assert [line.split()[0] for line in faults(bare | {"lr0": 0.1, "momentum": 0.9})] == [
        "lr0",
        "momentum",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("-2E+4", -2e4), ("1.5e3", 1500.0), ("12", 12), ("e3", "e3"), ("1e", "1e")],
)
def test_a_number_without_a_point_is_a_number(text: str, value: object) -> None:
    read = yaml.load(f"lr0: {text}", UniqueKeys)["lr0"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["a: 1\na: 2", "base: {b: 1, b: 1}"])
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="is given twice"):
        yaml.load(text, UniqueKeys)


@pytest.mark.parametrize(
    ("value", "name"),
    [(0.001, "0.001"), ([0, 1], "0-1"), ("a/b c'd", "a-b-c-d"), (None, "None"), ("", "none")],
)
def test_names_are_made_of_safe_characters(value: object, name: str) -> None:
    assert safe_name(value) == name
