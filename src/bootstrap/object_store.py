"""Buckets, and for each consumer an S3 user that may touch its own bucket only.

Speaks to MinIO's S3 and admin API, which the Docker image and JuiceFS's gateway share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import urllib3
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin

from src.bootstrap import BootstrapError, Outcome, report
from src.settings import Settings


@dataclass(frozen=True)
class Consumer:
    """A user of the store: an access key, its secret and the one bucket that it may touch."""

    access_key: str
    secret_key: str
    bucket: str

    @property
    def policy(self) -> dict[str, object]:
        """The consumer's IAM policy: list, read, write and delete in its bucket."""
        bucket = f"arn:aws:s3:::{self.bucket}"
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
                    "Resource": [bucket],
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
                    "Resource": [f"{bucket}/*"],
                },
            ],
        }


def consumers(settings: Settings) -> list[Consumer]:
    """Return the store's three users: ZenML's clients, the MLflow server and DVC."""
    s = settings
    return [
        Consumer(s.zenml_s3_access_key, s.zenml_s3_secret_key, s.zenml_bucket),
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
    if bucket in existing:
        report(f"bucket {bucket}", "unchanged")
    else:
        root.make_bucket(bucket)
        report(f"bucket {bucket}", "created")


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
