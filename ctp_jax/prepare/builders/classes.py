"""Class names that lists come with, and whether the videos agree. No TensorFlow."""

from collections.abc import Collection, Mapping, Sequence

from ctp_jax import config
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import lists


def check(name: str, class_names: Collection[str], where: str, said: str) -> None:
    """Raises `UserError` for a class, read at `where`, that the file `said` lacks."""
    if name not in class_names:
        like = config.closest(name, class_names)
        raise UserError(
            f"{where}: class {name!r} is not in {said}, which has {len(class_names)}"
            + (f"; did you mean {like!r}?" if like else "")
        )


def notes(
    splits: Mapping[str, Sequence[lists.Entry]], class_names: Sequence[str]
) -> list[str]:
    """A line for `train` and for `val` where classes have no video at all."""
    lines = []
    for split in {"train", "val"} & splits.keys():
        there = {entry.class_name for entry in splits[split]}
        without = [name for name in class_names if name not in there]
        if without:
            lines.append(
                f"{split}: {len(without)} of {len(class_names)} classes have no video: "
                f"{lists.some(without)}"
            )
    return sorted(lines)
