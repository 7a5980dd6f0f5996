"""Writes a data set as shards that are independent of each other.

Which videos a shard holds is fixed before any video is read. So shards can be written
in any order, on any machine, and by a run that resumes a killed one, with the same
bytes. A receipt is written after each shard; the shard is complete when its checksum
agrees with the receipt.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from etils import epath

from ctp_jax import formatting, terminal
from ctp_jax.data import tfrecord
from ctp_jax.errors import UserError, allowed_bad
from ctp_jax.prepare import boxes
from ctp_jax.prepare import schema as schema_lib
from ctp_jax.prepare import workers as workers_lib
from ctp_jax.storage import remote, untrusted

VIDEOS = 512
"""Default maximum of a shard: about 1.2 GB of Kinetics."""

_MAX_RECEIPT = 1 << 30  # bytes, of a single shard with all videos
_RECEIPT = {"rows": [{"id": str}], "skipped": [[str]]}


@dataclasses.dataclass(frozen=True)
class Order:
    """A shard to write: all that a worker needs to know.

    Attributes:
        items: the videos, in the order of their records.
        schema: of the records.
        file: path of the shard.
        receipt: path of its receipt.
        fingerprint: of the whole preparation; receipts with another one are ignored.
        versions: of the packages that decode and encode, see `provenance.versions`.
    """

    items: tuple[workers_lib.Item, ...]
    schema: schema_lib.Schema
    file: str
    receipt: str
    fingerprint: str
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A written shard, as its receipt describes it.

    Attributes:
        fingerprint: of the preparation.
        name: of the file.
        size: bytes.
        sha256: of the file.
        rows: of the records.
        contents: digest of the frames of every record: equal for equal videos.
        skipped: (name, reason) of the videos that could not be used.
        visible_frames: with a visible object, where the videos have boxes.
        causes: how many boxes, and in how many videos, have each of `boxes.CAUSES`.
    """

    fingerprint: str
    name: str
    size: int
    sha256: str
    rows: tuple[tfrecord.Row, ...]
    contents: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    visible_frames: int = 0
    causes: Sequence[Sequence[int]] = ((0, 0),) * len(boxes.CAUSES)


def deal(
    items: Sequence[workers_lib.Item], count: int = 0
) -> list[list[workers_lib.Item]]:
    """Distributes the videos over shards, in the order of the hashes of their names.

    Args:
        items: the videos.
        count: number of shards, at most one per video; 0: one per `VIDEOS` videos.

    Raises:
        ValueError: two videos of one name, or no videos.
    """
    if not items:
        raise ValueError("no videos")
    if len({item.id for item in items}) < len(items):
        raise ValueError("two videos have the same name")
    count = min(count or -(-len(items) // VIDEOS), len(items))
    keys = [hashlib.sha256(item.id.encode()).digest() for item in items]
    order = sorted(range(len(items)), key=keys.__getitem__)
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [
        [items[i] for i in order[start:end]]
        for start, end in itertools.pairwise(bounds)
    ]


def read(order: Order) -> Shard | None:
    """The receipt of a shard; None without one, or if another preparation wrote it."""
    try:
        with remote.opened(order.receipt, _MAX_RECEIPT) as file:
            found = untrusted.parse_json(file.read(), _RECEIPT)
        rows = [row | {"id": row["id"].encode()} for row in found.pop("rows")]
        skipped = tuple((name, reason) for name, reason in found.pop("skipped"))
        contents = tuple(found.pop("contents"))
        rows = tuple(tfrecord.Row(**row) for row in rows)
        shard = Shard(**found, rows=rows, contents=contents, skipped=skipped)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, half of one, or a file of another kind
    return shard if shard.fingerprint == order.fingerprint else None


def finished(order: Order) -> Shard | None:
    """The receipt of a shard whose file exists and has the recorded size, or None."""
    shard, path = read(order), epath.Path(order.file)
    if shard and path.exists() and remote.size(path) == shard.size:
        return shard
    return None


def is_whole(order: Order) -> bool:
    """Whether the file of the shard has the recorded checksum. Reads the file."""
    shard = finished(order)
    if not shard:
        return False
    digest = hashlib.sha256()
    with epath.Path(order.file).open("rb") as file:
        # Not `hashlib.file_digest`: TensorFlow's files of object stores lack `readinto`.
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest() == shard.sha256


def write(order: Order, results: Iterable[workers_lib.Result]) -> None:
    """Writes a shard and its receipt; holds one video at a time in memory.

    Args:
        order: the shard.
        results: the encoded videos, in the order of its items.
    """
    serialize = schema_lib.Serializer(order.schema)
    digest, position, rows, contents, skipped = hashlib.sha256(), 0, [], [], []
    visible, causes = 0, np.zeros((len(boxes.CAUSES), 2), int)
    with remote.replacing(order.file) as file:
        for item, result in results:
            if isinstance(result, str):
                skipped.append((item.id, result))
                continue
            payload = serialize(item, result)
            before, after = tfrecord.frame(payload)
            for part in (before, payload, after):
                file.write(part)
                digest.update(part)
            start = position + len(before)
            rows.append(schema_lib.row(item, result, start, len(payload)))
            contents.append(hashlib.sha256(b"".join(result.frames)).hexdigest()[:32])
            position = start + len(payload) + len(after)
            seen = result.annotations.get("visibility", np.zeros((0, 1)))
            visible += int((seen > 0).any(axis=-1).sum())
            if "causes" in result.annotations:
                own = np.bincount(
                    result.annotations["causes"].ravel(), None, len(causes)
                )
                causes += np.stack([own, own > 0], axis=-1)
    about = {
        "fingerprint": order.fingerprint,
        "name": os.path.basename(order.file),
        "size": position,
        "sha256": digest.hexdigest(),
        "rows": [row._asdict() | {"id": row.id.decode()} for row in rows],
        "contents": contents,
        "skipped": skipped,
        "visible_frames": visible,
        "causes": causes.tolist(),
    }
    with remote.replacing(order.receipt) as file:
        file.write(json.dumps(about).encode())


def write_all(
    orders: Sequence[Order],
    workers: int,
    watch: Callable[[Iterable[workers_lib.Result]], workers_lib.Results],
) -> None:
    """Writes shards one after the other, with their videos encoded in parallel.

    Args:
        orders: the shards.
        workers: number of processes; 0: one per core.
        watch: passes the encoded videos on; may raise to stop the work.
    """
    items = [item for order in orders for item in order.items]
    # One pool for all shards: no process waits for the end of a shard.
    with (
        contextlib.closing(workers_lib.encode_in_parallel(items, workers)) as encoded,
        contextlib.closing(watch(encoded)) as results,
    ):
        for order in orders:
            write(order, itertools.islice(results, len(order.items)))


class TooManyBad(UserError):
    """More unreadable videos than allowed. `skipped` lists (name, reason)."""

    def __init__(self, message: str, skipped: Sequence[tuple[str, str]]):
        super().__init__(message)
        self.skipped = list(skipped)


def make(
    orders: Sequence[Order],
    write: Callable[..., None],
    *,
    name: str,
    max_bad: float,
    progress: bool,
) -> list[Shard]:
    """Writes the shards that are not complete yet.

    Args:
        orders: all shards.
        write: writes the given shards, as `write_all` does; may ignore `watch`.
        name: of the data set.
        max_bad: see `ctp_jax.errors.allowed_bad`.
        progress: whether to show the progress.

    Returns:
        All shards.

    Raises:
        TooManyBad: too many unreadable videos. Shards that lack one lose their receipt,
            so that the next run tries their videos again. A set of one shard is tried to
            its end first, so that all bad videos are known.
    """
    total = sum(len(order.items) for order in orders)
    with concurrent.futures.ThreadPoolExecutor(workers_lib.available_cores()) as pool:
        found = pool.map(is_whole, orders)
        complete = list(
            terminal.progress(found, "checking shards", len(orders), show=progress)
        )
    missing = [
        order for order, there in zip(orders, complete, strict=True) if not there
    ]
    tried = total - sum(len(order.items) for order in missing)
    done = [read(o) for o, there in zip(orders, complete, strict=True) if there]
    skipped = [pair for shard in done if shard for pair in shard.skipped]

    def watch(results: Iterable[workers_lib.Result]) -> workers_lib.Results:
        bad = list(skipped)
        shown = terminal.progress(
            results, name, total, done=tried, unit="videos", show=progress
        )
        with contextlib.closing(shown):
            for count, (item, result) in enumerate(shown, tried + 1):
                if isinstance(result, str):
                    bad.append((item.id, result))
                    if total > VIDEOS:
                        _check(bad, count, total, max_bad)
                yield item, result

    try:
        _check(skipped, tried, total, max_bad)
        if missing:
            write(missing, watch=watch)
        # Beam may run one shard on two workers, which meet different bad videos.
        made = [shard for order in orders if (shard := finished(order))]
        if len(made) < len(orders):
            raise UserError(
                f"{os.path.dirname(orders[0].file)}: {len(orders) - len(made)} of "
                f"{len(orders)} shards are missing or do not match their receipts "
                "though the job has ended: run the same command to resume"
            )
        _check([p for shard in made for p in shard.skipped], total, total, max_bad)
    except TooManyBad:
        for order in orders:
            shard = read(order)
            if shard and shard.skipped:
                epath.Path(order.receipt).unlink()
        raise
    return made


def _check(
    skipped: Sequence[tuple[str, str]], tried: int, total: int, max_bad: float
) -> None:
    allowed = allowed_bad(total, max_bad)
    if len(skipped) > allowed:
        needed = math.ceil(100 * len(skipped) / tried) / 100
        raise TooManyBad(
            f"{len(skipped)} of the {formatting.count(tried, 'video')} tried so far cannot "
            f"be used, and --max_bad={max_bad:g} allows {allowed} of {total}: repair or "
            f"remove them, or leave them out: pass --max_bad={needed:g}"
            + (" or more" if tried < total else ""),
            skipped,
        )
