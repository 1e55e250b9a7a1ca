"""Build, validate and version ``data/tiny_person``: ``python -m src.datasets [--force]``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from src.client import use_stack
from src.datasets import FOLDER, DatasetError, manifest, synthetic
from src.datasets.coco128 import SPLIT_SEED, build_coco128
from src.datasets.manifest import Manifest
from src.datasets.validation import validate
from src.datasets.versioning import Versions, configure_remote
from src.download import DownloadError
from src.errors import run_command
from src.files import sha256
from src.inputs import Kind, photos, settle
from src.settings import ROOT, Settings, load_settings


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.datasets", description=__doc__)
    parser.add_argument("--force", action="store_true", help="build the data set anew")
    parser.add_argument(
        "--configure-only", action="store_true", help="only write DVC's remote to .dvc/config.local"
    )
    arguments = parser.parse_args()
    settings = load_settings()
    configure_remote(settings)
    if not arguments.configure_only:
        use_stack(settings)
        ensure(settings, force=arguments.force)


def ensure(settings: Settings, *, force: bool = False) -> None:
    """Build what is missing, validate what is new, version it and push it.

    A person's own changes to the folder become a new version; they are never overwritten, unless
    ``force`` says so.
    """
    inputs = settle(settings, manifest.built())
    inputs.announce()
    versions = Versions()
    state = versions.state()
    name = FOLDER.relative_to(ROOT)
    if not state.present and state.md5 is not None and not force and versions.fetch():
        print(f"{name}: brought back by DVC ({state.md5})")
        state = versions.state()
    stale = state.present and _is_stale(inputs.dataset, settings)
    if stale and state.changed and not force and state.md5 is not None:
        raise DatasetError(
            f"{name} holds changes of yours, and {inputs.dataset} is to be built anew because its "
            f"source or the settings have changed: commit yours with dvc add {name}, or replace "
            "them with make data FORCE=1"
        )
    if force or stale or not state.present:
        build(inputs.dataset, settings)
        print(f"{name}: built ({manifest.read(FOLDER).provenance})")
        state = versions.state()
    if state.changed:
        counts = validate(FOLDER)
        md5 = versions.add()
        listed = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{name}: valid ({listed}), version {md5}")
        state = versions.state()
    else:
        print(f"{name}: unchanged ({state.md5})")
    if state.pushed:
        print("DVC remote: unchanged")
    else:
        versions.push()
        print("DVC remote: pushed")


def _is_stale(kind: Kind, settings: Settings) -> bool:
    """Tell whether the built data set comes from something else than would be used today."""
    built = manifest.read(FOLDER)
    if built.kind != kind:
        return True
    if kind == "synthetic":
        return built.source_sha256 != sha256(Path(synthetic.__file__))
    if settings.coco128_url.startswith("file:"):
        try:
            return built.source_sha256 != sha256(photos(settings))
        except DownloadError:
            return False  # the stick is unplugged: what was built from it still holds
    return False  # an address names the same archive, which need not be fetched to know


def build(kind: Kind, settings: Settings) -> None:
    """Write the data set to a temporary folder, validate it and move it into place."""
    FOLDER.parent.mkdir(exist_ok=True)
    for leftover in FOLDER.parent.glob(".tiny_person.*"):  # of an interrupted build
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".tiny_person.", dir=FOLDER.parent) as temporary:
        fresh = Path(temporary) / FOLDER.name
        fresh.mkdir()
        if kind == "coco128":
            archive = photos(settings)
            try:
                build_coco128(fresh, archive)
            except DatasetError:
                if not settings.coco128_url.startswith("file:"):
                    archive.unlink()  # so that the next try downloads it anew
                raise
            source, seed = archive, SPLIT_SEED
        else:
            seed = SPLIT_SEED
            synthetic.draw_synthetic(fresh, seed=seed)
            source = Path(synthetic.__file__)
        manifest.write(fresh, Manifest(kind=kind, seed=seed, source_sha256=sha256(source)))
        validate(fresh)
        if FOLDER.exists():
            FOLDER.rename(Path(temporary) / "replaced")
        fresh.rename(FOLDER)


if __name__ == "__main__":
    sys.exit(run_command(main))
