"""Which data set is in use: the lab's, or one that was imported.

``DATASET`` or ``NAME``, given to make or in the environment, switches; the choice is recorded in
``.stack/datasets.json`` and holds until the next. ``.env``'s ``DATASET`` serves only the first
time. A process works on one data set, chosen when this module is imported.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from src.errors import UserError
from src.files import write_private
from src.inputs import Choice
from src.settings import ENV_FILE, ROOT, STATE, SettingsError, read_env_file

LAB = "tiny_person"
RECORD = STATE / "datasets.json"
CHOICES: tuple[str, ...] = get_args(Choice)  # what DATASET says for the lab's own
TAKEN = ("tiny", "person")  # whose experiment or model would be the lab's
NAME_LENGTH = 40


class SetError(UserError):
    """No such data set; the message says which there are."""


@dataclass(frozen=True)
class DataSet:
    """A data set's name and what follows from it; the lab's own set keeps the lab's names."""

    name: str

    @property
    def folder(self) -> Path:
        """Where its working copy is."""
        return ROOT / "data" / self.name

    @property
    def pointer(self) -> Path:
        """DVC's file, which names the version."""
        return self.folder.with_suffix(".dvc")

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"data/{self.name}"

    @property
    def experiment(self) -> str:
        """Its experiment in MLflow."""
        return "cv_yolo_tiny" if self.name == LAB else f"cv_yolo_{self.name}"

    @property
    def run_prefix(self) -> str:
        """How its runs' names begin."""
        return "zenml_yolo_tiny" if self.name == LAB else f"zenml_yolo_{self.name}"

    @property
    def model(self) -> str:
        """Its registered model in MLflow."""
        return "person-detector" if self.name == LAB else f"{self.name}-detector"

    @property
    def there(self) -> bool:
        """Whether there is a working copy or a pointer of it."""
        return self.folder.is_dir() or self.pointer.is_file()


class Built(BaseModel):
    """What this checkout knows of a data set: where it came from, and the last version seen."""

    model_config = ConfigDict(extra="ignore")

    asked: str = ""  # DATASET: an absolute path or an address; for the lab's, one of CHOICES
    stamp: str = ""  # of the source's files when it was built
    built: str = ""  # DVC's content hash of what was built from it
    seen: str = ""  # DVC's content hash at the last `make data`
    fresh: str = ""  # the inode of a folder that was built and is no version yet
    fresh_stamp: str = ""  # of its source's files


class Record(BaseModel):
    """The choice, and what is known of each data set."""

    model_config = ConfigDict(extra="ignore")

    in_use: str | None = None
    sets: dict[str, Built] = Field(default_factory=dict)


def read_record() -> Record:
    """Return the record, an empty one where there is none that can be read."""
    try:
        return Record.model_validate_json(RECORD.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Record()


def write_record(record: Record, file: Path | None = None) -> None:
    """Write the record, whole or not at all."""
    write_private(file or RECORD, json.dumps(record.model_dump(), indent=2) + "\n")


def remember(name: str, **known: str) -> None:
    """Record that a data set is in use, and what is new about it."""
    before = read_record()
    record = before.model_copy(deep=True)
    record.in_use = name
    record.sets[name] = record.sets.get(name, Built()).model_copy(update=known)
    if record != before:
        write_record(record)


def slug(text: str) -> str:
    """Return a name of ``a-z 0-9 _ -`` made of any text."""
    plain = re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_-")[:NAME_LENGTH].strip("_-")
    return plain or "dataset"


def name_of(dataset: str) -> str:
    """Return the name that a DATASET has without NAME: that of its folder or archive."""
    if dataset in CHOICES:
        return LAB
    path = unquote(urlsplit(dataset).path) if "://" in dataset else str(Path(dataset).absolute())
    file = PurePosixPath(path.replace("\\", "/"))
    if file.suffix.lower() in (".yaml", ".yml", ".json", ".xml"):
        file = file.parent
    stem = re.sub(r"(\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz))+$", "", file.name, flags=re.IGNORECASE)
    return slug(stem)


def asked(environ: Mapping[str, str] = os.environ) -> tuple[str | None, str | None]:
    """Return the name and the DATASET that were given to this process, None where they weren't."""
    dataset = environ.get("DATASET") or None
    name = environ.get("NAME") or None
    if name == socket.gethostname() and "WSL_DISTRO_NAME" in environ:
        name = None  # Windows' subsystem sets NAME in every shell
    return name, dataset


def choose(environ: Mapping[str, str] = os.environ) -> DataSet:
    """Return the data set that this process is about; it need not exist."""
    name, dataset = asked(environ)
    if name is None and dataset is not None:
        name = name_of(dataset)
    if name is None:
        name = read_record().in_use
    if name is None:
        name = name_of(_first())
    return DataSet(name)


def _first() -> str:
    """Return ``.env``'s DATASET, which nothing has overruled yet."""
    try:
        return read_env_file(ENV_FILE).get("DATASET") or "auto"
    except (OSError, SettingsError):  # said where the settings are read
        return "auto"


def source(chosen: DataSet, environ: Mapping[str, str] = os.environ) -> str:
    """Return the DATASET that a set comes from, as given now, recorded, or in ``.env``.

    Empty for a set whose source this checkout doesn't know: one that came with its pointer.
    """
    _, dataset = asked(environ)
    if dataset is not None:
        return dataset
    known = read_record().sets.get(chosen.name)
    if known is not None and known.asked:
        return known.asked
    first = _first()
    if name_of(first) == chosen.name:
        return first
    return "auto" if chosen.name == LAB else ""


def known_sets() -> list[str]:
    """Return the names of the data sets of this checkout."""
    data = ROOT / "data"
    found = {file.stem for file in data.glob("*.dvc")}
    found |= {f.name for f in data.glob("*/") if f.is_dir() and not f.name.startswith(".")}
    return sorted(found | {LAB})


def require(environ: Mapping[str, str] = os.environ, *, may_import: bool = False) -> DataSet:
    """Return the data set that this process is about, and record the choice.

    Args:
        environ: The process's.
        may_import: Whether the command imports a DATASET that isn't there yet.

    Raises:
        SetError: When NAME can't be a name, or there is no such data set.
    """
    name, dataset = asked(environ)
    if name is not None and slug(name) != name:
        raise SetError(f"NAME={name}: write it with a-z 0-9 _ - alone: NAME={slug(name)}")
    if name == LAB and dataset is not None and dataset not in CHOICES:
        raise SetError(f"NAME={LAB} is the lab's own data set: give yours another name")
    chosen = choose(environ)
    if chosen.name in TAKEN:
        raise SetError(f"{chosen.name} is part of the lab's own names: give it another NAME")
    if name not in (None, LAB) and dataset in CHOICES:
        raise SetError(f"DATASET={dataset} is {LAB}: leave NAME out")
    if chosen.name == LAB and dataset is not None and dataset not in CHOICES:
        raise SetError(f"DATASET={dataset} would be named {LAB}, as the lab's own: give it a NAME")
    if chosen.name != LAB and not chosen.there and not (may_import and source(chosen, environ)):
        given = f"NAME={name}" if name else f"DATASET={dataset}" if dataset else chosen.shown
        raise SetError(
            f"{given}: there is no such data set here, only {', '.join(known_sets())}: import it "
            "with make data DATASET=<folder, archive or address>"
        )
    if not may_import or chosen.there or chosen.name == LAB:
        remember(chosen.name)
    return chosen


def lab_choice(first: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return what DATASET says of the lab's set: auto, coco128 or synthetic.

    What was given last holds; ``first``, the setting, serves until then.
    """
    given = environ.get("DATASET")
    known = read_record().sets.get(LAB)
    for found in (given, known.asked if known else "", first):
        if found in CHOICES:
            return str(found)
    return "auto"
