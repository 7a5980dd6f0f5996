"""What a prepared data set is like, in a few lines."""

import contextlib

from etils import epath

from ctp_jax.data import records
from ctp_jax.formatting import command, count
from ctp_jax.prepare import boxes, provenance
from ctp_jax.storage import remote

_HELD_OUT = ("test", "val")  # what names of splits begin with
_FEW = 20
_REMEDY = "; if they are corners: --box_format=xyxy --overwrite"


def describe(name: str, root: str, expected: dict[str, int] | None = None) -> str:
    """Describes a prepared data set in a few lines.

    Args:
        name: of the data set.
        root: the `data_dir`.
        expected: number of videos that each split should have.
    """
    directory, found = records.open_index(name, root)
    minutes = ""
    if (found.fps > 0).all():  # sets that TFDS prepared may not have it
        minutes = (
            f"{float((found.num_frames / found.fps).sum()) / 60:.1f} minutes of video, "
        )
    first = (
        f"{name}: {count(len(found.length), 'video')}, "
        f"{count(found.num_frames.sum(), 'frame')}, "
        f"{minutes}{found.file_size.sum() / 1e6:.1f} MB in {directory}"
    )
    lines = [first]
    for split in sorted(set(found.splits) - {"all"}):
        there = len(found.splits[split])
        wanted = expected[split] if expected else there
        of = f"{there} of " * bool(expected)
        lines.append(f"  {split}: {of}{count(wanted, 'video')}")
        if there < _FEW and split.startswith(_HELD_OUT):
            lines.append(
                f"  note: with so few videos, numbers measured on {split} will be coarse"
            )
    if shape := found.features.annotations.get("visibility"):
        about = provenance.read(directory)
        seen, causes = about.get("visible_frames"), about.get("causes", ())
        if isinstance(seen, int):  # the file may be a stranger's
            lines.append(
                f"  boxes of at most {shape[0]} objects a video, one or more of them "
                f"visible in {seen / found.num_frames.sum():.1%} of the frames"
            )
        with contextlib.suppress(TypeError, ValueError):  # likewise
            lines += [
                f"  boxes that {cause}: {number:,} in {count(videos, 'video')}"
                + _REMEDY * (cause == boxes.MISTAKEN)
                for (number, videos), cause in zip(causes, boxes.CAUSES, strict=False)
                if cause and number
            ]
    if len(found.class_names) == 1:
        lines.append(
            f"  one class, {found.class_names[0]!r}: if its videos belong to several "
            "classes, --videos must name the folder that contains the class folders"
        )
    elif found.class_names:
        lines.append(f"  {count(len(found.class_names), 'class', 'classes')}")
    lines += [f"  {line}" for line in _lines(directory / "summary.txt")]
    for file, what, shown in [
        ("skipped.txt", "videos skipped", 10),
        ("missing.txt", "listed videos that are not there", 3),
        ("repeated.txt", "videos with the same frames as one in another split", 3),
    ]:
        listed = _lines(directory / file)
        if listed:
            lines.append(f"  {what}: {len(listed)}, in {directory / file}")
            lines += ["    " + line.replace("\t", ": ") for line in listed[:shown]]
    return "\n".join(lines)


def next_step(config: str, name: str, data_dir: str) -> str:
    """The command that trains on a prepared data set; '' if none is known.

    Args:
        config: takes the data set and its splits as arguments, after its own; or ''.
        name: of the data set.
        data_dir: as it was given.
    """
    if not config:
        return ""
    splits = records.open_index(name, records.default_data_dir(data_dir))[1].splits
    # Of train01, train02, ... the first.
    train = min((each for each in splits if each.startswith("train")), default="")
    test = min((each for each in splits if each.startswith(_HELD_OUT)), default="")
    if not train:
        return ""
    own = ":" in config  # arguments; what it takes for held out may depend on them
    config += ("," if own else ":") + f"data={name}"
    config += f",train={train}" * (train != "train")
    config += f",test={test}" * (bool(test) and (own or test != "test"))
    words = ["python", "-m", "ctp_jax.main", f"--config={config}"]
    words += ["--config.data.eval_split="] * (not test)
    words += [f"--config.data.data_dir={data_dir}"] * bool(data_dir)
    return f"next:\n  {command([*words, f'--workdir=runs/{name}'])}"


def _lines(path: epath.Path) -> list[str]:
    """The lines of a file; [] if there is none."""
    with contextlib.suppress(FileNotFoundError), remote.opened(path) as file:
        return file.read().decode(errors="replace").splitlines()
    return []
