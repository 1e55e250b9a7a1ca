"""Recipes and grids: names, overrides, and every fault before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.settings import ROOT
from src.training.recipes import OVERRIDES, RecipeError, as_given, read_grid, read_recipe

REQUIRED = {"epochs": 3, "imgsz": 320, "batch": 8, "seed": 0}
RECIPE = REQUIRED | {"optimizer": "AdamW"}
AXES = {"epochs": [3, 5], "imgsz": [320, 416]}

Write = Callable[[object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a writer of a configuration file: an object as YAML, a string as it is."""

    def write(content: object) -> Path:
        file = tmp_path / "recipe.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        file.write_text(text)
        return file

    return write


def recipe_faults(path: Path, **overrides: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def grid_fault(path: Path, **overrides: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read_grid(path, overrides)
    assert str(path) in str(caught.value)
    return str(caught.value)


def grid(axes: object = AXES, **base: object) -> dict[str, object]:
    return {"base": {"batch": 8, "seed": 0} | base, "grid": axes}


def test_a_recipe_is_what_the_file_says(write: Write) -> None:
    assert read_recipe(write(RECIPE | {"lr0": 0.002}), {}) == RECIPE | {"lr0": 0.002}


def test_overrides_win(write: Write) -> None:
    recipe = read_recipe(write(RECIPE), {"epochs": 9, "seed": 7})
    assert recipe == RECIPE | {"epochs": 9, "seed": 7}


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_argument_is_named(write: Write, name: str) -> None:
    path = write({key: value for key, value in RECIPE.items() if key != name})
    assert recipe_faults(path) == [f"{name} is missing"]


def test_an_unknown_argument_is_named(write: Write) -> None:
    assert recipe_faults(write(RECIPE | {"epoch": 3})) == [
        "epoch is not a training argument of Ultralytics"
    ]


@pytest.mark.parametrize("name", ["data", "model", "project", "workers", "resume", "device"])
def test_what_the_trainer_decides_is_refused(write: Write, name: str) -> None:
    assert recipe_faults(write(RECIPE | {name: "x"})) == [f"{name} is set by the trainer"]


@pytest.mark.parametrize(("size", "near"), [(300, 288), (310, 320), (1, 32), (33, 32), (417, 416)])
def test_an_image_size_that_is_no_multiple_of_32_comes_with_one_that_is(
    write: Write, size: int, near: int
) -> None:
    (fault,) = recipe_faults(write(RECIPE), imgsz=size)
    assert fault == f"imgsz={size} is not a multiple of 32: try {near}"


@pytest.mark.parametrize("name", ["epochs", "imgsz", "batch"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "three", None, [3]])
def test_counts_are_whole_numbers_from_1(write: Write, name: str, value: object) -> None:
    (fault,) = recipe_faults(write(RECIPE | {name: value}))
    assert fault.startswith(f"{name}=")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "one"), ("seed", -1), ("lr0", "fast"), ("momentum", 7), ("cos_lr", "yes")],
)
def test_a_value_that_ultralytics_refuses_is_named(write: Write, name: str, value: object) -> None:
    (fault,) = recipe_faults(write(RECIPE | {name: value}))
    assert name in fault


def test_all_faults_come_at_once(write: Write) -> None:
    path = write({"imgsz": 300, "batch": 0, "seed": 0, "epoch": 3, "data": "x"})
    found = "\n".join(recipe_faults(path))
    for name in ("epochs is missing", "imgsz=300", "batch=0", "epoch is not a", "data is set"):
        assert name in found


def test_wrong_values_of_all_kinds_come_at_once(write: Write) -> None:
    found = "\n".join(recipe_faults(write(RECIPE | {"imgsz": 300, "lr0": "fast", "momentum": 7})))
    for name in ("imgsz", "lr0", "momentum"):
        assert name in found


@pytest.mark.parametrize("text", ["", "just words", "- a list", "epochs: [", "\ttab: 1"])
def test_a_file_that_is_no_mapping_is_one_clear_error(write: Write, text: str) -> None:
    path = write(text)
    for read in (read_recipe, read_grid):
        with pytest.raises(RecipeError, match=r"recipe\.yaml"):
            read(path, {})


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        read_recipe(tmp_path / "recipe.yaml", {})


def test_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    for read in (read_recipe, read_grid):
        with pytest.raises(RecipeError, match="a folder, where a file is wanted"):
            read(tmp_path, {})


def test_a_file_that_is_not_utf_8_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"epochs: \xff")
    for read in (read_recipe, read_grid):
        with pytest.raises(RecipeError, match=r"recipe\.yaml: not UTF-8 text \(byte 8\)"):
            read(tmp_path / "recipe.yaml", {})


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("text", ["three", "1.5", "-1", "1e3", "0x10", " 3"])
def test_an_override_is_checked_as_the_files_values_are(write: Write, name: str, text: str) -> None:
    (fault,) = recipe_faults(write(RECIPE), **{name: as_given(text)})
    assert fault == f"{name}={text}: a whole number from {OVERRIDES[name]}"


def test_an_override_that_is_a_number_is_taken_as_one(write: Write) -> None:
    assert read_recipe(write(RECIPE), {"epochs": as_given("010")})["epochs"] == 10


def test_the_cells_are_the_labs(write: Write) -> None:
    cells = read_grid(write(grid()), {})
    assert [cell.run_name for cell in cells] == [
        "zenml_yolo_tiny_e3_320",
        "zenml_yolo_tiny_e3_416",
        "zenml_yolo_tiny_e5_320",
        "zenml_yolo_tiny_e5_416",
    ]
    assert cells[1].recipe == {"epochs": 3, "imgsz": 416, "batch": 8, "seed": 0}


def test_another_axis_stands_in_the_name(write: Write) -> None:
    cells = read_grid(write(grid(AXES | {"freeze": [0, 10]})), {})
    assert len(cells) == 8
    assert cells[1].run_name == "zenml_yolo_tiny_e3_320_freeze10"


def test_epochs_and_size_stand_in_the_name_even_when_they_do_not_vary(write: Write) -> None:
    (cell,) = read_grid(write(grid({"batch": [4]}, epochs=2, imgsz=160)), {})
    assert cell.run_name == "zenml_yolo_tiny_e2_160_batch4"


def test_an_override_of_an_axis_leaves_it_that_value(write: Write) -> None:
    cells = read_grid(write(grid()), {"epochs": 9})
    assert [(c.recipe["epochs"], c.recipe["imgsz"]) for c in cells] == [(9, 320), (9, 416)]


def test_another_override_goes_to_every_cell(write: Write) -> None:
    cells = read_grid(write(grid()), {"seed": 7})
    assert [cell.recipe["seed"] for cell in cells] == [7] * 4


def test_an_axis_wins_over_the_base(write: Write) -> None:
    cells = read_grid(write(grid(epochs=1)), {})
    assert {cell.recipe["epochs"] for cell in cells} == {3, 5}


def test_several_seeds_train_every_cell_with_each(write: Write) -> None:
    cells = read_grid(write(grid({"epochs": [3]}, imgsz=320) | {"seeds": [0, 1]}), {})
    assert [(cell.run_name, cell.recipe["seed"]) for cell in cells] == [
        ("zenml_yolo_tiny_e3_320_s0", 0),
        ("zenml_yolo_tiny_e3_320_s1", 1),
    ]


def test_an_override_of_the_seed_leaves_that_one(write: Write) -> None:
    (cell,) = read_grid(write(grid({"epochs": [3]}, imgsz=320) | {"seeds": [0, 1]}), {"seed": 7})
    assert (cell.run_name, cell.recipe["seed"]) == ("zenml_yolo_tiny_e3_320", 7)


@pytest.mark.parametrize("seeds", [3, [], None, "0, 1", ["one"], [0, 0]])
def test_seeds_are_a_list_of_different_whole_numbers(write: Write, seeds: object) -> None:
    grid_fault(write(grid() | {"seeds": seeds}))


def test_the_same_cell_twice_is_refused(write: Write) -> None:
    fault = grid_fault(write(grid({"epochs": [3, 3], "imgsz": [320]})))
    assert "the same cell twice: zenml_yolo_tiny_e3_320" in fault


@pytest.mark.parametrize(
    "content",
    [
        RECIPE,
        {"base": RECIPE},
        {"base": RECIPE, "grid": {}},
        {"base": RECIPE, "grid": [3, 5]},
        {"base": [1], "grid": AXES},
        {"base": RECIPE, "grid": AXES, "surplus": 1},
    ],
)
def test_a_grid_of_another_shape_is_refused(write: Write, content: object) -> None:
    assert "`base:`" in grid_fault(write(content))


@pytest.mark.parametrize("values", [3, [], None, "3, 5"])
def test_an_axis_without_a_list_is_named(write: Write, values: object) -> None:
    assert "epochs: write a list" in grid_fault(write(grid({"epochs": values, "imgsz": [320]})))


@pytest.mark.parametrize("axes", [{"epoch": [3, 5]}, {"lr0": [0.1, "fast"]}, {"imgsz": [320, 300]}])
def test_a_fault_of_any_cell_is_found(write: Write, axes: dict[str, list[object]]) -> None:
    assert next(iter(axes)) in grid_fault(write(grid(axes, epochs=3, imgsz=320)))


def test_the_faults_of_all_cells_come_at_once(write: Write) -> None:
    fault = grid_fault(write(grid({"epochs": [3], "imgsz": [300, 400]})))
    assert "imgsz=300" in fault
    assert "imgsz=400" in fault


@pytest.mark.parametrize("suffix", ["", "_scratch"])
def test_the_shipped_recipes_are_valid(suffix: str) -> None:
    read_recipe(ROOT / f"configs/baseline{suffix}.yaml", {})
    assert len(read_grid(ROOT / f"configs/grid{suffix}.yaml", {})) == 4


PRETRAINED = {
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.0002,
    "cos_lr": True,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0,
    "freeze": 10,
    "mosaic": 0,
    "cache": "ram",
}
FROM_SCRATCH = {
    "batch": 4,
    "nbs": 4,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "cos_lr": True,
    "warmup_epochs": 0.5,
    "mosaic": 0,
    "scale": 0.1,
    "hsv_h": 0,
    "hsv_s": 0,
    "hsv_v": 0,
    "cache": "ram",
}


@pytest.mark.parametrize(
    ("name", "shared", "epochs", "sizes", "seeds"),
    [
        ("grid", PRETRAINED, (3, 5), (320, 416), (0,)),
        ("grid_scratch", FROM_SCRATCH, (8, 20), (128, 192), (0,)),
        ("grid_seeds", PRETRAINED, (3, 5), (416,), (0, 1, 2)),
    ],
)
def test_the_shipped_grids_train_what_they_always_have(
    name: str,
    shared: dict[str, object],
    epochs: tuple[int, ...],
    sizes: tuple[int, ...],
    seeds: tuple[int, ...],
) -> None:
    cells = read_grid(ROOT / f"configs/{name}.yaml", {})
    assert [cell.recipe for cell in cells] == [
        shared | {"epochs": e, "imgsz": size, "seed": seed}
        for e in epochs
        for size in sizes
        for seed in seeds
    ]


class TestBase:
    """A grid that names its base recipe."""

    def grid(self, folder: Path, base: object, recipe: object = RECIPE) -> Path:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (folder / "grids").mkdir()
        file = folder / "grids" / "grid.yaml"
        file.write_text(yaml.safe_dump({"base": base, "grid": {"epochs": [1, 2]}}))
        return file

    def test_it_is_a_file_beside_the_grids(self, tmp_path: Path) -> None:
        cells = read_grid(self.grid(tmp_path, "../recipe.yaml"), {"seed": 7})
        assert [cell.recipe for cell in cells] == [
            RECIPE | {"epochs": e, "seed": 7} for e in (1, 2)
        ]

    def test_what_it_lacks_may_come_from_the_grid(self, tmp_path: Path) -> None:
        recipe = {name: value for name, value in RECIPE.items() if name != "epochs"}
        assert len(read_grid(self.grid(tmp_path, "../recipe.yaml", recipe), {})) == 2

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("nowhere.yaml", "nowhere.yaml: no such file"),
            ("../grids", "a folder, where a file is wanted"),
            ("grid.yaml", "grid is not a training argument"),
            ("../latin.yaml", "latin.yaml: not UTF-8 text"),
            ("../list.yaml", "list.yaml: write `argument: value` lines"),
        ],
    )
    def test_a_bad_reference_is_one_clear_error(
        self, tmp_path: Path, name: str, fault: str
    ) -> None:
        (tmp_path / "latin.yaml").write_bytes(b"epochs: \xff")
        (tmp_path / "list.yaml").write_text("[1]")
        said = grid_fault(self.grid(tmp_path, name))
        assert "grid.yaml: base: " in said
        assert fault in said

    def test_a_fault_of_the_recipe_names_its_file(self, tmp_path: Path) -> None:
        said = grid_fault(self.grid(tmp_path, "../recipe.yaml", RECIPE | {"epoch": 3}))
        assert "recipe.yaml: epoch is not a training argument" in said
