"""Where a data set comes from: a folder, an archive, one of its files, or an address."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from src.datasets.importing import archives
from src.datasets.importing.account import ImportFault
from src.datasets.importing.tree import is_image, is_litter
from src.download import DownloadError, fetch
from src.inputs import DOWNLOADS

ANNOTATIONS = (".yaml", ".yml", ".json", ".xml")
PRESIGNED = 24 * 3600  # seconds that an address made for s3:// holds


@dataclass(frozen=True)
class Source:
    """What DATASET names, found but not opened."""

    given: str  # as recorded: an absolute path or an address
    path: Path | None = None  # None for an address
    chosen: str | None = None  # the annotation file that was named, relative to the folder
    url: str = ""  # where an address is read from

    @property
    def remote(self) -> bool:
        """Whether it has to be downloaded first."""
        return self.path is None

    def stamp(self) -> str:
        """Return what changes when the files do: names, sizes and times, read without opening.

        An address names the same archive for ever: what was imported from it holds.
        """
        if self.path is None:
            return self.given
        digest = hashlib.sha256(f"{self.chosen}\n".encode())
        for name, path in _files(self.path):
            found = path.stat()
            line = f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    @contextmanager
    def opened(self, beside: Path) -> Iterator[tuple[Path, bool]]:
        """Yield the folder, unpacked beside the version's, and whether its files are ours."""
        if self.path is not None and self.path.is_dir():
            yield self.path, False
            return
        archive = self.path or _download(self.given, self.url)
        with tempfile.TemporaryDirectory(prefix=".unpacked.", dir=beside) as folder:
            try:
                archives.unpack(archive, Path(folder))
            except ImportFault:
                if self.remote:
                    archive.unlink()  # so that the next try downloads it again
                raise
            yield Path(folder), True
        if self.remote:
            archive.unlink()  # last: until the version has it all, another try needs it


def find(dataset: str) -> Source:
    """Return the source that a DATASET names; raises ``ImportFault`` where there is none."""
    scheme = urlsplit(dataset).scheme if "://" in dataset else ""
    if scheme in ("http", "https", "s3"):
        return Source(dataset, url=_presigned(dataset) if scheme == "s3" else dataset)
    if scheme not in ("", "file"):
        raise ImportFault(f"DATASET={dataset}: give http://, https://, s3://, or a path")
    path = Path(unquote(urlsplit(dataset).path) if scheme else dataset).expanduser().absolute()
    if not path.exists():
        raise ImportFault(
            f"DATASET={dataset}: no such file or folder: give auto, coco128, synthetic, a folder, "
            "an archive, a data.yaml or an address"
        )
    if path.is_dir():
        return Source(str(path), path)
    if archives.is_archive(path):
        return Source(str(path), path)
    if path.suffix.lower() not in ANNOTATIONS:
        raise ImportFault(
            f"DATASET={dataset}: neither a folder, an archive ({', '.join(archives.SUFFIXES)}) nor "
            "a data.yaml, COCO JSON or CVAT XML file"
        )
    folder = path.parent
    # annotations/instances.json beside images/: the folder of both is meant.
    if path.suffix.lower() in (".json", ".xml") and not any(is_image(n) for n, _ in _files(folder)):
        folder = folder.parent
    return Source(str(path), folder, path.relative_to(folder).as_posix())


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not is_litter(name))
        for name in sorted(names):
            file = Path(folder) / name
            if not is_litter(name) and file.exists():
                yield str(file.relative_to(path)), file


def _download(address: str, url: str) -> Path:
    """Fetch an archive, from where an interrupted download stopped."""
    parts = urlsplit(address)
    key = hashlib.sha256(address.encode()).hexdigest()[:8]
    target = DOWNLOADS / f"{key}-{Path(unquote(parts.path)).name}"
    try:
        return fetch(url, target)
    except DownloadError as error:
        # What follows the question mark is a key to the archive.
        raise DownloadError(str(error).replace(url, shown(address))) from None


def shown(address: str) -> str:
    """Return an address without its query, which may hold a key, and without a password."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _presigned(address: str) -> str:
    """Return an address that can be read without keys for a while, signed with the user's keys.

    Without keys the bucket must be public.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    parts = urlsplit(address)
    session = boto3.session.Session()
    config = None if session.get_credentials() else Config(signature_version=UNSIGNED)
    client = session.client("s3", config=config)
    return str(
        client.generate_presigned_url(
            "get_object",
            Params={"Bucket": parts.netloc, "Key": parts.path.lstrip("/")},
            ExpiresIn=PRESIGNED,
        )
    )
