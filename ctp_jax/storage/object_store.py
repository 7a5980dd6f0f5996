"""Object stores, opened by TensorStore, which Orbax brings along.

TensorStore finds the credentials, and tries again, with growing pauses, what may pass.
"""

import functools
import os
import re
from typing import Any

from ctp_jax.errors import TryLater, UserError

DRIVERS = {"gs": "gcs", "s3": "s3"}
"""TensorStore's names for the schemes of addresses."""

# Pauses of 1, 2, 4, ... seconds: 15 s in all for the first answer, 5 min for later ones.
_FIRST_RETRIES: dict[str, Any] = {"max_retries": 4, "max_delay": "8s"}
_RETRIES: dict[str, Any] = {"max_retries": 14, "max_delay": "32s"}
_PATIENCE = 20  # seconds for the first answer

_reached: set[tuple[str, str]] = set()


@functools.cache
def _store(scheme: str, bucket: str, patient: bool) -> Any:
    """A bucket, opened by TensorStore; nothing is sent."""
    # A transfer of nothing for a minute counts as a lost connection.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "60")
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    import tensorstore

    driver = DRIVERS[scheme]
    retries = {"initial_delay": "1s", **(_RETRIES if patient else _FIRST_RETRIES)}
    spec = {"driver": driver, "bucket": bucket, f"{driver}_request_retries": retries}
    if scheme == "s3" and os.environ.get("AWS_ACCESS_KEY_ID"):
        # Looking elsewhere first would print what it does not find.
        spec["aws_credentials"] = {"type": "environment"}
    if scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        names = ("AWS_REGION", "AWS_DEFAULT_REGION")
        region = next(filter(None, map(os.environ.get, names)), "us-east-1")
        spec |= {"endpoint": endpoint, "aws_region": region}
    try:
        return tensorstore.KvStore.open(spec).result()
    except ValueError as error:
        raise explained(error, f"{scheme}://{bucket}", "open") from error


def connected(scheme: str, bucket: str, prefix: str) -> Any:
    """A `tensorstore.KvStore` of a bucket that has answered once.

    Args:
        scheme: of `DRIVERS`.
        bucket: its name.
        prefix: the folder to ask for, with a slash, or empty.

    Raises:
        UserError: no such kind of name, or no rights.
        TryLater: no answer within seconds.
    """
    if (scheme, bucket) not in _reached:
        store = _store(scheme, bucket, False)
        try:
            # Any object, whether it is there or not.
            store.read(f"{prefix}.lock").result(timeout=_PATIENCE)
        except Exception as error:
            address = f"{scheme}://{bucket}/{prefix}".rstrip("/")
            raise explained(error, address, "read") from error
        _reached.add((scheme, bucket))
    return _store(scheme, bucket, True)


def explained(error: Exception, address: str, doing: str) -> UserError:
    """The error for the user.

    Args:
        error: of TensorStore, which says in its text what is wrong.
        address: for the message.
        doing: what failed: open, list, read, write or delete.
    """
    text = " ".join(str(error).split())
    code = re.search(r"http_response_code='(\d+)'", text)
    status = code[1] if code else ""
    if status in ("401", "403") or "PERMISSION_DENIED" in text or "redentials" in text:
        return UserError(
            f"{address}: no permission to {doing} objects{status and f' ({status})'}: give "
            "the account of this machine the right to list, read, write and delete there, "
            "or name another"
        )
    if status == "404" or "NoSuchBucket" in text:
        return UserError(f"{address}: no such bucket: make it, or correct the name")
    if doing == "open":
        return UserError(
            f"{address}: cannot be used ({text[:200]}): correct the address"
        )
    reason = re.sub(r"^[A-Z_]+: (All \d+ retry attempts failed: )?", "", text)
    reason = reason.partition(" [")[0][:200] or f"no answer in {_PATIENCE} s"
    return TryLater(
        f"{address}: cannot be reached ({reason}): check the network and the name, then "
        "run the same command again"
    )
