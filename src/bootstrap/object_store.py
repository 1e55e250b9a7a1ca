"""Buckets, and for each consumer an S3 user that may touch its own bucket only.

Speaks to MinIO's S3 and admin API, which the Docker image and JuiceFS's gateway share.

A bucket that is renamed in ``.env`` stays as it is. MLflow and DVC name their objects relative to
it, and find copies in the new one; ZenML's artifacts have addresses with the bucket's name, and its
user goes on to reach them. A user that is renamed is deleted under the old name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin

from src.bootstrap import BootstrapError, Outcome, report
from src.bootstrap.applied import AppliedStore, former_buckets
from src.settings import Settings


@dataclass(frozen=True)
class Consumer:
    """A user of the store: an access key, its secret and the one bucket that it may touch."""

    access_key: str
    secret_key: str
    bucket: str
    former: tuple[str, ...] = ()  # buckets under earlier names that it may touch too

    @property
    def policy(self) -> dict[str, object]:
        """The consumer's IAM policy: list, read, write and delete in its bucket."""
        buckets = [f"arn:aws:s3:::{bucket}" for bucket in (self.bucket, *self.former)]
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": [
                        "s3:GetBucketLocation",
                        "s3:ListBucket",
                        "s3:ListBucketMultipartUploads",
                    ],
                    "Resource": buckets,
                },
                {
                    "Effect": "Allow",
                    "Action": [
                        "s3:GetObject",
                        "s3:PutObject",
                        "s3:DeleteObject",
                        "s3:AbortMultipartUpload",
                        "s3:ListMultipartUploadParts",
                    ],
                    "Resource": [f"{bucket}/*" for bucket in buckets],
                },
            ],
        }


def consumers(settings: Settings) -> list[Consumer]:
    """Return the store's three users: ZenML's clients, the MLflow server and DVC."""
    s = settings
    former = tuple(former_buckets(settings))
    return [
        Consumer(s.zenml_s3_access_key, s.zenml_s3_secret_key, s.zenml_bucket, former),
        Consumer(s.mlflow_s3_access_key, s.mlflow_s3_secret_key, s.mlflow_bucket),
        Consumer(s.dvc_s3_access_key, s.dvc_s3_secret_key, s.dvc_bucket),
    ]


def converge(settings: Settings) -> None:
    """Create or correct the buckets, policies and users.

    Raises:
        BootstrapError: When the store does not answer, or refuses the root user.
    """
    endpoint = _endpoint(settings)
    with _connection(settings) as http:
        root = Minio(
            endpoint,
            access_key=settings.minio_root_user,
            secret_key=settings.minio_root_password,
            secure=False,
            http_client=http,
        )
        admin = MinioAdmin(
            endpoint=endpoint,
            credentials=StaticProvider(settings.minio_root_user, settings.minio_root_password),
            secure=False,
            http_client=http,
        )
        buckets = {bucket.name for bucket in root.list_buckets()}
        policies = json.loads(admin.policy_list())
        users = json.loads(admin.user_list())
        for consumer in consumers(settings):
            _ensure_bucket(root, buckets, consumer.bucket)
            _ensure_policy(admin, policies, consumer)
            _ensure_user(admin, users, consumer, endpoint, http)
        last, now = AppliedStore.last(settings), AppliedStore.wanted(settings)
        for old, new in ((last.mlflow, now.mlflow), (last.dvc, now.dvc)):
            if old != new and old in buckets:
                _copy(root, old, new)
        for name in sorted({*last.users} - {*now.users}):
            _remove_user(admin, policies, users, name)
    # Last: a run that was killed does it again.
    now.former = former_buckets(settings)
    now.remember(settings)


def is_reachable(settings: Settings) -> bool:
    """Tell whether every consumer reaches its bucket under its own keys."""
    with _connection(settings) as http:
        return all(
            _signs_in(consumer, _endpoint(settings), http) for consumer in consumers(settings)
        )


def _endpoint(settings: Settings) -> str:
    return settings.store_url.removeprefix("http://")


@contextmanager
def _connection(settings: Settings) -> Iterator[urllib3.PoolManager]:
    """Yield what the store's clients connect through; its faults are ``BootstrapError``."""
    retries = urllib3.Retry(total=2, backoff_factor=0.2)
    try:
        with urllib3.PoolManager(retries=retries, timeout=10) as http:
            yield http
    except S3Error as error:
        raise BootstrapError(f"object store {settings.store_url}: {error.message}") from error
    except MinioAdminException as error:
        raise BootstrapError(f"object store {settings.store_url}: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise BootstrapError(
            f"the object store does not answer at {settings.store_url}: make up"
        ) from error


def _ensure_bucket(root: Minio, existing: set[str], bucket: str) -> None:
    if bucket not in existing:
        root.make_bucket(bucket)
        report(f"bucket {bucket}", "created")
    elif _is_public(root, bucket):
        root.delete_bucket_policy(bucket)
        report(f"bucket {bucket}", "updated")
    else:
        report(f"bucket {bucket}", "unchanged")


def _is_public(root: Minio, bucket: str) -> bool:
    """Tell whether a bucket has a policy of its own, which is what opens it to everybody."""
    try:
        return bool(root.get_bucket_policy(bucket))
    except S3Error as error:
        if error.code == "NoSuchBucketPolicy":
            return False
        raise


def _copy(root: Minio, old: str, new: str) -> None:
    """Copy what a bucket holds to another, but for what is there already."""
    there = {item.object_name: item.etag for item in root.list_objects(new, recursive=True)}
    count = 0
    for item in root.list_objects(old, recursive=True):
        if there.get(item.object_name) != item.etag:
            name = str(item.object_name)
            root.copy_object(new, name, CopySource(old, name))
            count += 1
    if count:
        report(f"bucket {new}: {count} objects of {old}, which stays", "created")


def _remove_user(
    admin: MinioAdmin, policies: dict[str, object], users: dict[str, dict[str, str]], name: str
) -> None:
    """Delete a user that ``.env`` names no more, and its policy."""
    if name in users:
        admin.user_remove(name)
        report(f"S3 user {name}, which .env names no more", "deleted")
    if name in policies:
        admin.policy_remove(name)


def _ensure_policy(admin: MinioAdmin, existing: dict[str, object], consumer: Consumer) -> None:
    name = consumer.access_key
    known = existing.get(name)
    if known is not None and _normal(known) == _normal(consumer.policy):
        report(f"policy {name}", "unchanged")
    else:
        admin.policy_add(name, policy=consumer.policy)
        report(f"policy {name}", "created" if known is None else "updated")


def _normal(policy: object) -> str:
    """Return a policy in one form, whatever order the store gives its lists in."""
    if isinstance(policy, list):
        return json.dumps(sorted(_normal(item) for item in policy))
    if isinstance(policy, dict):
        return json.dumps({key: _normal(value) for key, value in sorted(policy.items()) if value})
    return json.dumps(policy)


def _ensure_user(
    admin: MinioAdmin,
    existing: dict[str, dict[str, str]],
    consumer: Consumer,
    endpoint: str,
    http: urllib3.PoolManager,
) -> None:
    known = existing.get(consumer.access_key)
    right = (
        known is not None
        and known.get("policyName") == consumer.access_key
        and known.get("status") == "enabled"
        and _signs_in(consumer, endpoint, http)
    )
    if not right:
        admin.user_add(consumer.access_key, consumer.secret_key)
        admin.policy_set(consumer.access_key, user=consumer.access_key)
    outcome: Outcome = "created" if known is None else "unchanged" if right else "updated"
    report(f"S3 user {consumer.access_key}", outcome)


def _signs_in(consumer: Consumer, endpoint: str, http: urllib3.PoolManager) -> bool:
    """Tell whether the store knows the user under this very secret, and has its bucket."""
    client = Minio(
        endpoint,
        access_key=consumer.access_key,
        secret_key=consumer.secret_key,
        secure=False,
        http_client=http,
    )
    try:
        return bool(client.bucket_exists(consumer.bucket))
    except S3Error as error:
        if error.code in ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"):
            return False
        raise
