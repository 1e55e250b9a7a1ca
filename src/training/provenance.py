"""Where a run's numbers come from, as the tags that tell it."""

from __future__ import annotations

import json
import subprocess

from src.settings import ROOT
from src.training.trainer import WATCH

TRAINED = "trained_weights_sha256"  # the tag that tells a run's own weights, best.pt
ORIGIN = ROOT / "origin.json"  # beside code that was sent to a cluster's worker


def tags(dataset_md5: str, kind: str, weights: str, weights_sha256: str) -> dict[str, str]:
    """Return the tags that tell where a run's numbers come from."""
    return {
        "dataset": kind,
        "dataset_md5": dataset_md5,
        "weights": weights,
        "weights_sha256": weights_sha256,
        "git_commit": git_commit(),
        "node": WATCH.node,
    }


def git_commit() -> str:
    """Return the checkout's commit, ``+changes`` where the code differs from it."""
    if ORIGIN.is_file():
        return str(json.loads(ORIGIN.read_text())["git_commit"])

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = git("rev-parse", "HEAD")
    if not commit.isalnum():  # no commit yet
        return "none"
    return f"{commit}+changes" if git("status", "--porcelain", "--", "src", "configs") else commit
