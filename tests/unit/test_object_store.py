"""The S3 users' policies: their own bucket and nothing else."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from src.bootstrap.object_store import Consumer, _normal, consumers
from src.settings import Settings

DATA = Consumer("dvc-user", "secret", "data")


def allowed(consumer: Consumer, action: str, resource: str) -> bool:
    """Tell whether the policy allows an action, as S3 reads it."""
    statements: Any = consumer.policy["Statement"]
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(f"s3:{action}", pattern) for pattern in statement["Action"])
        and any(
            fnmatchcase(f"arn:aws:s3:::{resource}", pattern) for pattern in statement["Resource"]
        )
        for statement in statements
    )


def test_each_consumer_has_a_user_and_a_bucket_of_its_own(settings: Settings) -> None:
    found = {consumer.access_key: consumer.bucket for consumer in consumers(settings)}
    assert found == {
        "zenml": "zenml-artifacts",
        "mlflow": "mlflow-artifacts",
        "dvc-user": "dvc-data",
    }
    assert settings.minio_root_user not in found


@pytest.mark.parametrize("action", ["GetObject", "PutObject", "DeleteObject"])
def test_zenmls_artifacts_stay_reachable_where_they_were_written(action: str) -> None:
    renamed = Consumer("zenml", "secret", "new", ("old",))
    assert allowed(renamed, action, "new/file")
    assert allowed(renamed, action, "old/file")
    assert not allowed(renamed, action, "older/file")


@pytest.mark.parametrize("action", ["GetObject", "PutObject", "DeleteObject"])
def test_objects_of_the_own_bucket_only(action: str) -> None:
    assert allowed(DATA, action, "data/file")
    assert allowed(DATA, action, "data/folder/file")
    for other in ("other/file", "data-2/file", "other/data/file", "data"):
        assert not allowed(DATA, action, other), other


def test_the_own_bucket_only_is_listed() -> None:
    assert allowed(DATA, "ListBucket", "data")
    for other in ("other", "data-2", "*"):
        assert not allowed(DATA, "ListBucket", other), other


@pytest.mark.parametrize(
    "action", ["CreateBucket", "DeleteBucket", "PutBucketPolicy", "ListAllMyBuckets"]
)
def test_no_bucket_is_made_removed_or_opened(action: str) -> None:
    assert not allowed(DATA, action, "data")
    assert not allowed(DATA, action, "data/file")


def test_policies_compare_whatever_their_order() -> None:
    policy: Any = DATA.policy
    shuffled = {
        "Statement": [
            {key: value[::-1] if isinstance(value, list) else value for key, value in s.items()}
            for s in policy["Statement"][::-1]
        ],
        "Version": policy["Version"],
        "ID": "",  # what the store adds
    }
    assert _normal(shuffled) == _normal(policy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Effect", "Deny"),
        ("Action", ["s3:*"]),
        ("Resource", ["arn:aws:s3:::*"]),
        ("Condition", {"StringEquals": {"s3:prefix": "x"}}),
    ],
)
def test_policies_that_mean_something_else_differ(key: str, value: object) -> None:
    policy: Any = DATA.policy
    first, *others = policy["Statement"]
    changed = policy | {"Statement": [first | {key: value}, *others]}
    assert _normal(changed) != _normal(policy)
