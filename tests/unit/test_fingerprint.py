"""The cache's key: what changes it, and what doesn't."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from src.settings import ROOT
from src.training import fingerprint

CODE = '''
"""A module."""
import functools
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RATE = 0.5
NAMES = {"b", "a"}
HERE = Path("/somewhere")


@dataclass
class Thing:
    """A thing."""

    size: int = 3

    @property
    def double(self):
        return self.size * 2

    @staticmethod
    def name():
        return "thing"


def train(x, factor=2):
    """Train."""

    def inner(y):
        """Inside."""
        return y in {"left", "right"}

    return x * factor, [inner(n) for n in "ab"]


@contextmanager
def around():
    yield 1
'''


def key(code: str, name: str = "made_up") -> str:
    module = ModuleType(name)
    exec(compile(code, "made_up.py", "exec"), vars(module))
    return fingerprint.code_hash(module)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))


def test_the_same_code_has_the_same_key() -> None:
    assert key(CODE) == key(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.5", "RATE = 0.6"),
        ('{"b", "a"}', '{"b", "c"}'),
        ("size: int = 3", "size: int = 4"),
        ("self.size * 2", "self.size * 3"),
        ('return "thing"', 'return "other"'),
        ("factor=2", "factor=3"),
        ("x * factor", "x + factor"),
        ('"right"', '"wrong"'),
        ("yield 1", "yield 2"),
        ('for n in "ab"', 'for n in "abc"'),
    ],
)
def test_code_changes_the_key(old: str, new: str) -> None:
    assert old in CODE
    assert key(CODE.replace(old, new)) != key(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another text."""'),
        ('"""Train."""', '"""Train it all."""'),
        ('"""Inside."""', '"""In."""'),
        ('"""A thing."""', '"""Some thing."""'),
        ("RATE = 0.5", "\n\n# why\nRATE = 0.5  # a remark"),
        ('{"b", "a"}', '{"a", "b"}'),
        ('Path("/somewhere")', 'Path("/elsewhere")'),
        ("import functools", "import functools, itertools"),
    ],
)
def test_comments_docs_and_places_do_not(old: str, new: str) -> None:
    assert old in CODE
    assert key(CODE.replace(old, new)) == key(CODE)


def test_versions_threads_device_and_code_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from src.training import scoring

    before = fingerprint.determinants(scoring)
    assert fingerprint.determinants(scoring) == before
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        assert fingerprint.determinants(scoring) != before
    for name, value in (("device", "a GPU"), ("versions", {"torch": "0"}), ("code_hash", "x")):
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, name, lambda *_, value=value: value)
            assert fingerprint.determinants(scoring) != before
    for name in ("python", *fingerprint.PACKAGES, "threads", "device", "code"):
        assert name in before


def test_a_constant_of_the_training_modules_changes_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from src.training import scoring

    before = fingerprint.code_hash(scoring)
    monkeypatch.setattr(scoring, "CONFIDENCE", 0.25)
    assert fingerprint.code_hash(scoring) != before


def test_the_code_in_memory_counts_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text("def f():\n    return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import edited  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    before = fingerprint.code_hash(edited)
    file.write_text("def f():\n    return 2\n")
    assert fingerprint.code_hash(edited) == before


def test_another_process_gets_the_same_key() -> None:
    code = (
        "from src.training import fingerprint, scoring, tracking, trainer\n"
        "print(fingerprint.code_hash(scoring, tracking, trainer))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(keys) == 1


def test_a_host_name_is_not_in_the_key() -> None:
    from src.training import trainer

    found = "".join(fingerprint.described(trainer))
    assert "trainer.Watch.__init__" in found
    assert f"str:{trainer.WATCH.node}\n" not in found
    assert f"'str:{trainer.WATCH.node}'" not in found


def test_the_pipeline_and_its_key_need_no_pytorch(tmp_path: Path) -> None:
    """On a machine without a GPU: a run that is served from the cache imports neither."""
    code = (
        "import sys\n"
        "from src.training import fingerprint\n"
        "fingerprint.GPU_NODES = ()\n"
        "from src.zenml_pipelines import yolo_training_pipeline\n"
        "from src.zenml_steps import train_steps\n"
        "train_steps.cache_key()\n"
        "print([name for name in ('torch', 'ultralytics') if name in sys.modules])\n"
    )
    environment = {"ZENML_CUSTOM_SOURCE_ROOT": str(ROOT), "ZENML_CONFIG_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
