"""Finds videos that are in two splits under two names."""

from collections.abc import Mapping, Sequence

from ctp_jax.prepare import shards


def find(
    made: Sequence[shards.Shard], splits: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """Videos that have the same frames as one in another split, and that one.

    As in lists, train01 and test01 must differ, train01 and test02 need not.
    """
    content = {
        row.id.decode(): digest
        for shard in made
        for row, digest in zip(shard.rows, shard.contents, strict=True)
    }
    first: dict[tuple[str, str], tuple[str, str]] = {}
    pairs = []
    for split, videos in splits.items():
        for video in filter(content.__contains__, videos):
            key = (numbering(split), content[video])
            before_split, before = first.setdefault(key, (split, video))
            if before_split != split:
                pairs.append((f"{split}: {video}", f"same as {before_split}: {before}"))
    return pairs


def numbering(split: str) -> str:
    """`01` of the split train01: splits of one numbering must not share videos."""
    return split.lstrip("abcdefghijklmnopqrstuvwxyz")
