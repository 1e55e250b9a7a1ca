"""Which of Ultralytics' training arguments a recipe may hold, and why not the others.

Each argument of Ultralytics is in exactly one of these tables; ``tests/unit/test_arguments.py``
fails when a release brings one that is in none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

STRIDE = 32  # px; YOLO halves the image five times
REQUIRED = ("epochs", "imgsz", "batch", "seed")

# Whole numbers, and the least of each.
LEAST = {
    "epochs": 1,
    "imgsz": 1,
    "batch": 1,
    "seed": 0,
    "patience": 0,
    "close_mosaic": 0,
    "nbs": 1,
}
# Numbers from 0, up to 1 where True.
NUMBERS = dict.fromkeys(
    "lr0 lrf momentum weight_decay warmup_momentum warmup_bias_lr multi_scale cls_pw hsv_h hsv_s "
    "hsv_v translate perspective flipud fliplr bgr mosaic mixup cutmix".split(),
    True,
) | dict.fromkeys("warmup_epochs box cls dfl degrees shear".split(), False)
SWITCHES = frozenset("cos_lr rect cls_remap channels_last".split())
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "optimizer": ("auto", *"SGD MuSGD Adam Adamax AdamW NAdam RAdam RMSProp".split()),
    "cache": (False, True, "ram"),
}
OTHERS = frozenset(("fraction", "freeze", "scale", "compile"))  # checked by code of their own
ACCEPTED = LEAST.keys() | NUMBERS.keys() | SWITCHES | CHOICES.keys() | OTHERS

_RULER = "it would change what the scores mean: scoring is the same for every model"
_OURS = "set by the trainer"
_OUTPUT = "it is about files that nobody keeps"
_PREDICT = "it is about predicting"
_EXPORT = "it is about exporting"
_TASK = "it is about another task than detection"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys("conf iou max_det classes nms augment single_cls agnostic_nms quantize".split(),
                    _RULER),
    **dict.fromkeys(
        "task mode data model project name exist_ok save_dir resume pretrained device workers "
        "plots deterministic amp save verbose val split".split(),
        _OURS,
    ),
    "time": "it would overrule epochs, by a clock: the same recipe would train differently",
    "cfg": "it would overrule this recipe from another file, which no run records",
    "distill_model": "it names a second checkpoint, whose version no run records",
    "dis": "it is about distill_model, which is refused",
    "profile": "it is about speed, not about training",
    **dict.fromkeys("save_period save_json visualize save_frames save_txt save_conf save_crop "
                    "show show_labels show_conf show_boxes line_width".split(), _OUTPUT),
    **dict.fromkeys("source vid_stride stream_buffer embed retina_masks dnn tracker".split(),
                    _PREDICT),
    **dict.fromkeys("format optimize dynamic simplify opset workspace".split(), _EXPORT),
    **dict.fromkeys("overlap_mask mask_ratio dropout pose kobj rle angle dlog dgrad dlam "
                    "copy_paste copy_paste_mode auto_augment erasing".split(), _TASK),
}  # fmt: skip
AUTO_IGNORES = ("lr0", "momentum", "warmup_bias_lr")  # what `optimizer: auto` chooses itself

_NUMBER_AS_TEXT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_SAFE = re.compile(r"[^A-Za-z0-9.-]+")


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands there twice is an error, and ``1e-3`` a number.

    YAML 1.1 takes ``1e-3`` for text, because it has no point.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; raises ``yaml.YAMLError`` naming the key and its line."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER_AS_TEXT, list("-+0123456789."))


def faults(recipe: Mapping[str, Any], required: Collection[str] = REQUIRED) -> list[str]:
    """Return what is wrong with a recipe, a line for each fault, in its order."""
    found = [f"{name} is missing" for name in required if name not in recipe]
    found += [fault for name, value in recipe.items() if (fault := _fault(name, value))]
    if recipe.get("optimizer", "auto" if required else None) == "auto":
        found += [
            f"{name} is ignored beside optimizer: auto, which chooses its own: name an optimizer, "
            f"or remove {name}"
            for name in AUTO_IGNORES
            if name in recipe
        ]
    return found


def safe_name(value: object) -> str:
    """Return a value as a part of a run's name: letters, digits, point and dash alone."""
    return _SAFE.sub("-", str(value)).strip("-") or "none"


def _fault(name: str, value: Any) -> str | None:
    if name in REFUSED:
        reason = REFUSED[name]
        return f"{name} is {reason}" if reason == _OURS else f"{name} can't be set: {reason}"
    if name not in ACCEPTED:
        return f"{name} is not a training argument of Ultralytics"
    if name in LEAST:
        return _count_fault(name, value)
    if name in NUMBERS:
        most = 1 if NUMBERS[name] else None
        if not _is_number(value) or value < 0 or (most and value > most):
            return f"{name}={value}: a number from 0" + (" to 1" if most else "")
    elif name in SWITCHES:
        if not isinstance(value, bool):
            return f"{name}={value}: true or false"
    elif name in CHOICES:
        if not any(value is choice or (isinstance(value, str) and value == choice)
                   for choice in CHOICES[name]):  # fmt: skip
            return f"{name}={value}: one of {', '.join(_yaml(c) for c in CHOICES[name])}"
    else:
        return _other_fault(name, value)
    return None


def _count_fault(name: str, value: Any) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool) or value < LEAST[name]:
        return f"{name}={value}: a whole number from {LEAST[name]}"
    if name == "imgsz" and value % STRIDE:
        near = max(STRIDE, round(value / STRIDE) * STRIDE)
        return f"imgsz={value} is not a multiple of {STRIDE}: try {near}"
    return None


def _other_fault(name: str, value: Any) -> str | None:
    if name == "fraction":
        good = _is_number(value) and (0 < value <= 1 or (isinstance(value, int) and value > 1))
        return None if good else f"fraction={value}: a share above 0 to 1, or a number of images"
    if name == "freeze":
        listed = isinstance(value, list) and value and all(map(_is_layer, value))
        if not (value is None or _is_count(value) or listed):
            return (
                f"freeze={value}: a number of layers, or a list of layers, such as [0, 1, 22.cv2]"
            )
        return None
    if name == "scale":
        pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
        good = pair and 0 < value[0] <= value[1] if pair else _is_number(value) and 0 <= value <= 1
        return None if good else f"scale={value}: a number from 0 to 1, or [least, most]"
    modes = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")
    good = isinstance(value, bool) or value in modes
    return None if good else f"compile={value}: one of false, true, {', '.join(modes)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_layer(value: Any) -> bool:
    return _is_count(value) or bool(re.fullmatch(r"\d+(\.\w+)+", str(value)))


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
