"""A preparation as a list of shards, each made, checked and made again by itself.

What is in a shard is fixed before any video is read, so shards can be written in any
order, on any machine, and by a run that goes on where another was killed: the files are
the same. A shard is whole when its receipt, written after it, agrees with it.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import tqdm
from etils import epath

from ctp_jax.data import storage, tfrecord
from ctp_jax.errors import UserError, allowed_bad
from ctp_jax.prepare import schema as schema_lib
from ctp_jax.prepare import video
from ctp_jax.prepare import workers as workers_lib

VIDEOS = 512
"""How many a shard has at most unless told; Kinetics then has about 1.2 GB a shard."""

Results = Iterator[tuple[workers_lib.Item, video.EncodedVideo | str]]


@dataclasses.dataclass(frozen=True)
class Order:
    """What a shard shall be: all that a worker needs to make it.

    Attributes:
        items: the videos, in the order of their records.
        schema: of the records.
        file: path of the shard.
        receipt: path of the file that says that it is whole.
        fingerprint: of the whole preparation; a receipt of another one is void.
        versions: of the packages that shape what is written, see `versions`.
    """

    items: tuple[workers_lib.Item, ...]
    schema: schema_lib.Schema
    file: str
    receipt: str
    fingerprint: str
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a shard is: its receipt.

    Attributes:
        fingerprint: of the preparation.
        name: of the file.
        size: bytes.
        sha256: of the file.
        rows: of the records.
        skipped: (name, reason) of the videos that could not be used.
    """

    fingerprint: str
    name: str
    size: int
    sha256: str
    rows: tuple[tfrecord.Row, ...]
    skipped: tuple[tuple[str, str], ...]


def deal(
    items: Sequence[workers_lib.Item], count: int = 0
) -> list[list[workers_lib.Item]]:
    """Deals the videos into shards, in the order of the hashes of their names.

    Args:
        items: the videos.
        count: of shards; 0: as many as `VIDEOS` asks for. Never more than videos.

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
    """The receipt of a shard; None if there is none, or it is another preparation's."""
    try:
        found = json.loads(epath.Path(order.receipt).read_text())
        found["rows"] = tuple(
            tfrecord.Row(**(row | {"id": row["id"].encode()})) for row in found["rows"]
        )
        found["skipped"] = tuple((name, why) for name, why in found["skipped"])
        shard = Shard(**found)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # half a receipt, or something else
        return None
    return shard if shard.fingerprint == order.fingerprint else None


def finished(order: Order) -> Shard | None:
    """The receipt of a shard that is there with the size that it says, or None."""
    shard, path = read(order), epath.Path(order.file)
    if shard and path.exists() and path.stat().length == shard.size:
        return shard
    return None


def is_whole(order: Order) -> bool:
    """Whether the shard is there, byte for byte what its receipt says. Reads it."""
    shard = finished(order)
    if not shard:
        return False
    digest = hashlib.sha256()
    with epath.Path(order.file).open("rb") as file:
        # Not `hashlib.file_digest`: TensorFlow's files of object stores lack `readinto`.
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest() == shard.sha256


def whole(orders: Sequence[Order]) -> list[bool]:
    """`is_whole` of all of them, as fast as the disk goes."""
    with concurrent.futures.ThreadPoolExecutor(workers_lib.available_cores()) as pool:
        return list(pool.map(is_whole, orders))


def write(order: Order, results: Results) -> None:
    """Writes a shard and its receipt; holds one video at a time.

    Args:
        order: which.
        results: of its items, in their order.
    """
    serialize = schema_lib.Serializer(order.schema)
    digest, position, rows, skipped = hashlib.sha256(), 0, [], []
    with storage.replacing(order.file) as file:
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
            position = start + len(payload) + len(after)
    about = {
        "fingerprint": order.fingerprint,
        "name": os.path.basename(order.file),
        "size": position,
        "sha256": digest.hexdigest(),
        "rows": [row._asdict() | {"id": row.id.decode()} for row in rows],
        "skipped": skipped,
    }
    with storage.replacing(order.receipt) as file:
        file.write(json.dumps(about).encode())


def write_all(
    orders: Sequence[Order], workers: int, watch: Callable[[Results], Results]
) -> None:
    """Writes shards one after the other, with their videos encoded in parallel.

    Args:
        orders: the shards.
        workers: how many processes; 0 for one per core.
        watch: is given what is encoded and passes it on; may raise to stop the work.
    """
    items = [item for order in orders for item in order.items]
    # One pool for all: the processes do not wait for the end of a shard.
    with (
        contextlib.closing(workers_lib.encode_in_parallel(items, workers)) as encoded,
        contextlib.closing(watch(encoded)) as results,
    ):
        for order in orders:
            write(order, itertools.islice(results, len(order.items)))


Skipped = Sequence[tuple[str, str]]
"""(name, reason) of videos that cannot be used."""


class TooManyBad(UserError):
    """More unreadable videos than allowed. `skipped` lists (name, reason)."""

    def __init__(self, message: str, skipped: Skipped):
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
    """Makes the shards that are not whole yet.

    Args:
        orders: all the
        write: makes those that it is given, as `write_all` does; `watch` is
            there for who can use it.
        name: of the data set.
        max_bad: share of the videos that may be unreadable; at least one may be,
            unless it is 0.
        progress: whether to draw a bar.

    Returns:
        All the

    Raises:
        TooManyBad: shards that lack a video are not kept then, so that it is tried
            again once it is mended.
    """
    total = sum(len(order.items) for order in orders)
    there = whole(orders)
    done = [order for order, is_there in zip(orders, there, strict=True) if is_there]
    missing = [
        order for order, is_there in zip(orders, there, strict=True) if not is_there
    ]
    tried = sum(len(order.items) for order in done)
    skipped = _skipped([read(order) for order in done])

    def watch(results: Results) -> Iterator:
        bad = list(skipped)
        with _bar(name, total, tried, progress) as bar:
            for count, (item, result) in enumerate(results, tried + 1):
                bar.update()
                if isinstance(result, str):
                    bad.append((item.id, result))
                    _check(bad, count, total, max_bad)
                yield item, result

    try:
        _check(skipped, tried, total, max_bad)
        if missing:
            write(missing, watch=watch)
        # Two workers of Beam may have written one shard, and met different bad videos.
        made = [shard for order in orders if (shard := finished(order))]
        if len(made) < len(orders):
            raise UserError(
                f"{len(orders) - len(made)} of {len(orders)} shards are missing, or not "
                "what their receipts say, though the job has ended: run the same command "
                "to go on"
            )
        _check(_skipped(made), total, total, max_bad)
    except TooManyBad:
        for order in orders:
            shard = read(order)
            if shard and shard.skipped:
                epath.Path(order.receipt).unlink()
        raise
    return made


def _bar(name: str, total: int, tried: int, progress: bool) -> tqdm.tqdm:
    return tqdm.tqdm(
        desc=name,
        total=total,
        initial=tried,
        unit=" videos",
        # A line a minute into log files, which keep every one of them.
        mininterval=0.2 if sys.stderr.isatty() else 60,
        disable=not progress,
    )


def _skipped(made: Sequence[Shard]) -> Skipped:
    return [pair for shard in made for pair in shard.skipped]


def _check(skipped: Skipped, tried: int, total: int, max_bad: float) -> None:
    allowed = allowed_bad(total, max_bad)
    if len(skipped) > allowed:
        raise TooManyBad(
            f"{len(skipped)} of the {tried} videos tried so far cannot be used, and "
            f"--max_bad={max_bad:g} allows {allowed} of {total}: mend or remove them, "
            "or allow more",
            skipped,
        )
