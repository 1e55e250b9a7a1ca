"""Build or import, validate and version the data set in use: ``python -m src.datasets``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.client import use_stack
from src.datasets import FOLDER, SET, SPLITS, DatasetError, manifest, page, sets, synthetic
from src.datasets.coco128 import SPLIT_SEED, build_coco128
from src.datasets.importing import account, importer, source
from src.datasets.manifest import Manifest
from src.datasets.sets import LAB, Built
from src.datasets.validation import validate
from src.datasets.versioning import POINTER, State, Versions, configure_remote
from src.download import DownloadError
from src.errors import run_command
from src.files import sha256, write_private
from src.inputs import Kind, photos
from src.locks import hold
from src.services.outage import patience
from src.settings import ROOT, STATE, Settings, load_settings

REPLACED = STATE / "replaced"  # the pointers of versions that FORCE=1 has replaced
PAGES = ROOT / "reports" / "data"
Counts = dict[str, int]  # images by split


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.datasets", description=__doc__)
    parser.add_argument("--force", action="store_true", help="build the data set again")
    parser.add_argument(
        "--configure-only", action="store_true", help="only write DVC's remote to .dvc/config.local"
    )
    arguments = parser.parse_args()
    settings = load_settings()
    if arguments.configure_only:
        configure_remote(settings)
        return
    sets.require(may_import=True)
    configure_remote(settings)
    with hold("stack", "make data", shared=True), patience(settings):
        make(settings, force=arguments.force)


def make(settings: Settings, *, force: bool) -> None:
    """Ensure the data set: alone where something is to be done, beside trainings where not."""
    known = sets.read_record().sets.get(SET.name, Built())
    origin = None
    if SET.there and known.seen and not force:
        with hold("data", "make data", shared=True):
            origin = find_origin(settings)
            use_stack(settings)
            if _is_current(origin, known):
                ensure(origin)  # says so, and writes nothing that differs
                return
    with hold("data", "make data"):
        # Before the stack's keys take the place of yours, for s3://.
        origin = origin or find_origin(settings, force=force)
        use_stack(settings)
        ensure(origin, force=force)


def _is_current(origin: Origin, known: Built) -> bool:
    """Whether there is nothing to build, add, follow or push."""
    state = Versions().state()
    settled = state.present and not state.changed and state.pushed and state.md5 == known.seen
    return settled and not known.fresh and not origin.is_stale(known)


@dataclass(frozen=True)
class Origin:
    """What the data set in use is built from."""

    settings: Settings
    kind: Kind
    asked: str  # what is recorded of it
    imported: source.Source | None = None  # None for the lab's set, and where it is not known

    def stamp(self) -> str:
        """Return what changes when the source does."""
        return self.imported.stamp() if self.imported else ""

    def is_stale(self, known: Built) -> bool:
        """Whether what was built comes from something else than would be used today."""
        if self.kind == "imported":
            # A source that is not there any more, or not known, leaves what was made of it.
            return self.imported is not None and known.stamp != self.stamp()
        return _is_stale(self.kind, self.settings)


def find_origin(settings: Settings, *, force: bool = False) -> Origin:
    """Return what the data set in use is built from; raises ``ImportFault`` where it is gone."""
    if SET.name == LAB:
        inputs = manifest.settled(settings, again=force)
        inputs.announce()
        return Origin(settings, inputs.dataset, sets.lab_choice(settings.dataset))
    dataset = sets.source(SET)
    given = sets.asked()[1] is not None
    if not dataset or (not given and SET.there and _gone(dataset)):
        return Origin(settings, "imported", dataset)
    found = source.find(dataset)
    return Origin(settings, "imported", found.given, found)


def _gone(dataset: str) -> bool:
    """Whether a recorded source can't be found: an unplugged stick."""
    return "://" not in dataset and not Path(dataset).expanduser().exists()


def ensure(origin: Origin, *, force: bool = False) -> None:
    """Build what is missing, validate what is new, version it and push it.

    The user's own changes become a new version; they are never built over, unless ``force`` says
    so, and then they stay in DVC. A pointer that names another version than before, by ``git pull``
    or ``git checkout``, brings that version.
    """
    known = sets.read_record().sets.get(SET.name, Built())
    # What an interrupted build has put in place is not taken for the user's edits.
    placed = bool(known.fresh) and FOLDER.is_dir() and known.fresh == _inode(FOLDER)
    if placed:
        known = known.model_copy(update={"stamp": known.fresh_stamp})
        _sweep_builds()
    versions = Versions()
    state = versions.state()
    wanted = None  # the version that a pointer names and neither cache nor store holds
    followed = False
    between = bool(known.fresh) and not state.present  # the one taken away, the other not there yet
    if state.md5 is not None and not state.present and not force and not between:
        if versions.fetch():
            print(f"{SET.shown}: brought back by DVC ({state.md5})")
            followed = True
            state = versions.state()
        else:
            wanted = state.md5
    elif state.md5 is not None and state.present and state.changed and not force and not placed:
        followed, state = _follow_pointer(versions, state, known)
    # A pointer that was brought asks for its version, whatever it was built from.
    stale = state.present and wanted is None and not followed and origin.is_stale(known)
    if stale and not force and not placed:
        _refuse_to_build_over(state, known)
    built = force or stale or not state.present
    counts = None
    if built:
        if origin.kind == "imported" and origin.imported is None:
            raise DatasetError(_missing(wanted) if wanted else f"{SET.shown}: {NO_SOURCE}")
        if state.present:
            _keep(versions, state)
        counts = build(origin)
        print(f"{SET.shown}: built ({manifest.read(FOLDER).provenance})")
        state = versions.state(remote=False)
    if state.changed or state.md5 is None:
        state = _version(versions, counts, wanted=wanted)
    else:
        print(f"{SET.shown}: unchanged ({state.md5})")
        if built:  # else the remote was looked at above, which takes seconds for a large set
            state = versions.state()
    assert state.md5 is not None
    made = {"asked": origin.asked, "seen": state.md5, "fresh": "", "fresh_stamp": ""}
    if built or followed:
        made |= {"stamp": origin.stamp(), "built": state.md5}
    elif placed:
        made |= {"stamp": known.stamp, "built": state.md5}
    if followed and SET.name == LAB and (kind := manifest.read(FOLDER).kind) in sets.CHOICES:
        made["asked"] = kind
    sets.remember(SET.name, **made)
    if state.pushed:
        print("DVC remote: unchanged")
    else:
        started = time.monotonic()
        versions.push()
        print(f"DVC remote: pushed ({time.monotonic() - started:.1f} s)")
    ensure_page(state.md5)


NO_SOURCE = "where it came from is not known here: name it, make data DATASET=<folder or archive>"


def _follow_pointer(versions: Versions, state: State, known: Built) -> tuple[bool, State]:
    """Check out the pointer's version where the pointer has moved and the files have not.

    Returns:
        Whether it did, and how things are then.

    Raises:
        DatasetError: When both have, or when neither cache nor store holds the pointer's version.
    """
    if known.seen == state.md5:
        return False, state  # the pointer is where it was: the user's edits
    here = versions.content_md5()
    if here == known.seen or versions.holds(here):
        if not versions.fetch(over=True):
            raise DatasetError(_missing(state.md5))
        print(f"{SET.shown}: switched to the version that {POINTER.name} names ({state.md5})")
        return True, versions.state()
    if known.seen:
        raise DatasetError(
            f"{SET.shown} holds changes of yours, and {POINTER.name} names another version than "
            f"before ({state.md5}): keep yours with git checkout of the earlier {POINTER.name}, "
            "then make data; or take the other with rm -r of the folder, then make data"
        )
    return False, state


def _missing(md5: str | None) -> str:
    return (
        f"{POINTER.relative_to(ROOT)} names version {md5}, which neither the cache nor the store "
        "holds: push it from where it was made (make data there, with this store), take another "
        "pointer with git checkout, or build in its place with make data FORCE=1"
    )


def _refuse_to_build_over(state: State, known: Built) -> None:
    if not state.changed and state.md5 in (
        None,
        known.built,
        known.seen if not known.built else "",
    ):
        return
    edits = f"version {state.md5}" if not state.changed else "not versioned yet"
    raise DatasetError(
        f"{SET.shown} holds changes of yours ({edits}), and it is to be built again because its "
        "source or the settings have changed: keep yours by going back to the DATASET of before, "
        "or replace them with make data FORCE=1 (they stay in DVC)"
    )


def _keep(versions: Versions, state: State) -> None:
    """Say what is replaced; changes that are in no version become one first."""
    if state.changed or state.md5 is None:
        md5 = versions.add()
        versions.push()
    else:
        md5 = state.md5
    pointer = REPLACED / f"{SET.name}-{md5[:8]}.dvc"
    write_private(pointer, POINTER.read_text(encoding="utf-8"))
    print(
        f"{SET.shown}: replaces version {md5}, which stays in DVC; to go back: "
        f"cp {pointer.relative_to(ROOT)} {POINTER.relative_to(ROOT)} && make data"
    )


def _version(versions: Versions, counts: Counts | None, *, wanted: str | None) -> State:
    """Make the working copy a version, validated unless its ``counts`` are known.

    Where a version was wanted, only that one will do.
    """
    before = POINTER.read_text(encoding="utf-8") if wanted else ""
    counts = counts or validate(FOLDER)
    started = time.monotonic()
    md5 = versions.add()
    if wanted and md5 != wanted:
        POINTER.write_text(before, encoding="utf-8")
        shutil.rmtree(FOLDER)
        raise DatasetError(_missing(wanted))
    took = f"dvc add {time.monotonic() - started:.1f} s"
    print(f"{SET.shown}: valid ({_listed(counts)}), version {md5} ({took})")
    return versions.state()


def _listed(counts: Counts) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())


def _is_stale(kind: Kind, settings: Settings) -> bool:
    """Tell whether the lab's set comes from something else than would be used today."""
    built = manifest.read(FOLDER)
    if built.kind == "imported":
        return False  # without a manifest it is the user's own, which stays
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


def build(origin: Origin) -> Counts:
    """Write the data set to a temporary folder and move it into place, whole or not at all.

    Returns:
        The number of images in each split.
    """
    with _fresh() as fresh:
        if origin.imported is not None:
            counts = _import(origin.imported, fresh)
        else:
            counts = _build_labs(origin.kind, origin.settings, fresh)
        sets.remember(SET.name, fresh=_inode(fresh), fresh_stamp=origin.stamp())
        if FOLDER.exists():
            FOLDER.rename(fresh.parent / "replaced")
        fresh.rename(FOLDER)
    return counts


def _inode(folder: Path) -> str:
    """Return what a folder keeps when it is renamed."""
    return str(folder.stat().st_ino)


def _sweep_builds() -> None:
    """Delete what interrupted builds have left beside the data set's folder."""
    for leftover in FOLDER.parent.glob(f".{SET.name}.*"):
        shutil.rmtree(leftover)


@contextmanager
def _fresh() -> Iterator[Path]:
    """Yield an empty folder beside the data set's, removed afterwards unless it was moved."""
    FOLDER.parent.mkdir(exist_ok=True)
    _sweep_builds()
    with tempfile.TemporaryDirectory(prefix=f".{SET.name}.", dir=FOLDER.parent) as temporary:
        fresh = Path(temporary) / FOLDER.name
        fresh.mkdir()
        yield fresh


def _import(found: source.Source, fresh: Path) -> Counts:
    with found.opened(fresh.parent) as (folder, ours):
        taken = importer.build(folder, fresh, seed=SPLIT_SEED, chosen=found.chosen, movable=ours)
    manifest.write(
        fresh, Manifest(kind="imported", seed=SPLIT_SEED, source=taken.layout), taken.names
    )
    print(account.table(taken, SET.shown))
    return {split: taken.images[split] for split in SPLITS}


def _build_labs(kind: Kind, settings: Settings, fresh: Path) -> Counts:
    if kind == "coco128":
        archive = photos(settings)
        try:
            build_coco128(fresh, archive)
        except DatasetError:
            if not settings.coco128_url.startswith("file:"):
                archive.unlink()  # so that the next try downloads it again
            raise
        origin = archive
    elif kind == "synthetic":
        synthetic.draw_synthetic(fresh, seed=SPLIT_SEED)
        origin = Path(synthetic.__file__)
    else:
        raise AssertionError(f"no code builds the kind {kind}")
    manifest.write(fresh, Manifest(kind=kind, seed=SPLIT_SEED, source_sha256=sha256(origin)))
    return validate(fresh)


def ensure_page(md5: str) -> None:
    """Write the version's page where it isn't there yet, and say where it is."""
    file = PAGES / f"{SET.name}-{md5[:8]}.html"
    outcome = "unchanged"
    if not file.is_file():
        outcome = "drawn"
        text = page.render(
            FOLDER,
            manifest.class_names(FOLDER),
            SET.name,
            md5,
            manifest.read(FOLDER).provenance,
            page.read_account(FOLDER),
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    print(f"page of {SET.shown}: {outcome} ({file.relative_to(ROOT)})")


if __name__ == "__main__":
    sys.exit(run_command(main))
