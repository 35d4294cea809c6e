"""Object storages, for the authorities room: S3 and what speaks its language (signature version 4, path-style)."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.egress import Fetched
from certwright.platform.services import Services
from certwright.rooms.authorities import Bucket

_SECONDS = 30.0
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>")


class S3Storage:
    """Signs with botocore; sends through the guarded client, since the address is a user's to name."""

    async def put(self, services: Services, bucket: Bucket, key: str, content: bytes, headers: dict[str, str]) -> None:
        url = f"{bucket.endpoint}/{bucket.bucket}/{quote(key)}"
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        answer = await services.egress.fetch(
            url, method="PUT", headers=_signed(bucket, url, content, headers), content=content, timeout=_SECONDS,
            allowed_ports={port},
        )  # fmt: skip
        if not 200 <= answer.status < 300:
            raise _problem(bucket, answer)


def _signed(bucket: Bucket, url: str, content: bytes, headers: dict[str, str]) -> dict[str, str]:
    try:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError:
        raise Unavailable(
            "storage_not_installed", "The part for object storages isn't installed.",
            fix="Install it with: pip install 'certwright[s3]'.",
        ) from None  # fmt: skip
    request = AWSRequest(method="PUT", url=url, data=content, headers=headers)
    credentials = Credentials(bucket.access_key_id, bucket.secret_access_key)
    S3SigV4Auth(credentials, "s3", bucket.region).add_auth(request)
    return dict(request.headers.items())


def _problem(bucket: Bucket, answer: Fetched) -> Problem:
    found = _CODE.search(answer.body)
    said = f"{answer.status} {found[1].decode()}" if found else str(answer.status)
    if answer.status in (401, 403):
        return Refused("storage_refused", f"The storage {bucket.endpoint} refuses this access key ({said}).",
                       fix="Check the key, its secret, the region, and that it may write to the bucket.")  # fmt: skip
    if answer.status == 404:
        return Refused("storage_no_bucket", f"The storage {bucket.endpoint} has no bucket {bucket.bucket} ({said}).",
                       fix="Make the bucket, or correct its name.")  # fmt: skip
    return Unavailable("storage_failed", f"The storage {bucket.endpoint} answered {said}.",
                       fix="It is tried again by itself; look at the storage if it lasts.")  # fmt: skip
