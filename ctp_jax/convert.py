"""Converts PyTorch checkpoints to exported encoders and back.

python -m ctp_jax.convert SOURCE TARGET
"""

import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from ctp_jax import cli, models
from ctp_jax.errors import UserError, refusals
from ctp_jax.flags import Flags
from ctp_jax.storage import buckets, files

FLAGS = Flags()
FROM = FLAGS.choice(
    "from",
    None,
    ["auto", "pyvrl", "torchvision", "imagenet", "vcop"],
    "Code base whose names the file has; default: auto, detected from the names.",
)
TO = FLAGS.choice(
    "to",
    None,
    ["pyvrl", "torchvision", "vcop"],
    "Code base whose names to write; default: the first that has the network.",
)
NETWORK = FLAGS.choice(
    "network",
    None,
    [*models.MODULES],
    "Network to make of the file; default: what has its names, of a ResNet-18 for images "
    "r3d18, and not tsm18.",
)
ENCODER_ONLY = FLAGS.boolean("encoder_only", False, "Leave the head out.")
OVERWRITE = FLAGS.boolean(
    "overwrite", False, "Replace an existing target, once the new one is complete."
)


def main(arguments):
    """Converts a PyTorch checkpoint to an exported encoder, or the reverse.

    python -m ctp_jax.convert FILE FOLDER      .pth, .pt, .pyth, .bin, .ckpt, .tar or
                                               .safetensors; the folder is for
                                               config.init_from
    python -m ctp_jax.convert FOLDER FILE      a workdir, or its encoder folder
    """
    # Copying arrays needs no accelerator: it may be in use, or not be there.
    os.environ["JAX_PLATFORMS"] = "cpu"
    if len(arguments) != 2:
        raise UserError(
            f"{len(arguments)} paths: give SOURCE and TARGET, a file and a folder"
        )
    source, target = buckets.opened(arguments[0]), files.absolute(arguments[1])
    if source.is_dir():
        for name, value in (("from", FROM.value), ("network", NETWORK.value)):
            if value:
                raise UserError(
                    f"--{name}={value}: only for files, {source} is a folder"
                )
        lines = export_file(
            source, target, TO.value or "", ENCODER_ONLY.value, OVERWRITE.value
        )
    else:
        if TO.value:
            raise UserError(f"--to={TO.value}: only for folders, {source} is none")
        lines = import_file(
            source,
            target,
            FROM.value or "auto",
            ENCODER_ONLY.value,
            OVERWRITE.value,
            NETWORK.value or "",
        )
    print("\n".join(lines))


def import_file(
    source: pathlib.Path,
    target: pathlib.Path,
    family: str = "auto",
    encoder_only: bool = False,
    overwrite: bool = False,
    network: str = "",
) -> list[str]:
    """Converts a PyTorch file to an exported encoder; returns lines for the user.

    Args:
        source: the file.
        target: the folder to write.
        family: code base whose names the file has; `auto`: detected from the names.
        encoder_only: leave the head out.
        overwrite: replace an existing target, once the new one is complete.
        network: of this package, where several have the names of the file.

    Raises:
        UserError: the file does not fit a network of this package, or the target exists.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    from ctp_jax.interop import from_torch, state_dicts
    from ctp_jax.train.checkpoints import export

    if state_dicts.is_file_name(target):
        raise UserError(
            f"{target}: must be a folder if the source is a file; to change the names, "
            "convert to a folder and then to a file"
        )
    check_free(target, overwrite, is_encoder(target))
    state = state_dicts.read(source)
    imported = from_torch.convert(
        state.tensors,
        state.about,
        str(source),
        family,
        {"source": source.name, "sha256": state.sha256},
        network,
    )
    encoder = imported.encoder
    if encoder_only:
        encoder = encoder.without_head()
    with refusals(target):
        export.write_encoder(target, encoder)
    lines = [*_found(source, encoder, imported.family.name)]
    if imported.prefix:
        lines.append(f"  encoder: the names that begin with {imported.prefix}")
    if imported.others:
        lines.append(f"  other encoders, not taken: {', '.join(imported.others)}")
    unused = [f"{name} ({number})" for name, number in imported.unused.items()]
    lines.append(f"  unused tensors: {', '.join(unused) or 'none'}")
    of_ours = bool(encoder.provenance["clips"])
    if imported.family.note and not of_ours:
        lines.append(f"  note: {imported.family.note}")
    overrides = _overrides(str(target), encoder.architecture)
    return [
        *lines,
        f"wrote {target}",
        "go on: python -m ctp_jax.main --config=CONFIG --workdir=DIR " + overrides,
    ]


def export_file(
    source: pathlib.Path,
    target: pathlib.Path,
    family: str = "pyvrl",
    encoder_only: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Makes a file for PyTorch of an exported encoder; returns what to tell.

    Args:
        source: a workdir, or its encoder folder.
        target: the file to write.
        family: code base whose names to write.
        encoder_only: leave the head out.
        overwrite: replace an existing target, once the new one is complete.

    Raises:
        UserError: these names cannot express the network, or the target exists.
    """
    from ctp_jax.interop import names, state_dicts, to_torch
    from ctp_jax.train.checkpoints import export

    if not state_dicts.is_file_name(target):
        endings = ", ".join(state_dicts.SUFFIXES)
        raise UserError(
            f"{target}: must be a file if the source is a folder: name one that ends with "
            f"{endings}"
        )
    check_free(target, overwrite, target.is_file())
    encoder = export.load_encoder(source)
    network = encoder.architecture["name"]
    usual = next(iter(names.writable(network)), names.PYVRL)
    theirs = (names.FAMILIES[family] if family else usual).of(network)
    try:
        tensors = to_torch.convert(encoder, theirs, not encoder_only)
        if encoder_only:
            encoder = encoder.without_head()
        about = to_torch.about(encoder, theirs)
        lines = [*_found(source, encoder), *_differences(encoder.architecture, theirs)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Intact, so written by other code, or by hand.
        raise UserError(
            f"{source}: its arrays are not those of its architecture, "
            f"{encoder.architecture['name']} ({type(error).__name__}: {error}): export it "
            "with this version of ctp_jax"
        ) from error
    # Other code bases load the file itself as a state dict.
    state_dicts.write(target, tensors, about, bare=theirs is not names.PYVRL)
    lines.append(f"wrote {target}: {len(tensors)} tensors, names of {theirs.name}")
    return lines


def is_encoder(path: pathlib.Path) -> bool:
    """Whether a folder is an encoder or empty, so that --overwrite may replace it."""
    return path.is_dir() and (
        (path / "encoder.json").is_file() or not any(path.iterdir())
    )


def check_free(target: pathlib.Path, overwrite: bool, same_kind: bool) -> None:
    """Raises `UserError` unless a target may be written.

    Args:
        target: to write.
        overwrite: replace what is there.
        same_kind: what is there may be replaced.
    """
    if not (target.exists() or target.is_symlink()):
        return
    if not same_kind:
        raise UserError(f"{target}: exists and is something else: name another target")
    if not overwrite:
        raise UserError(
            f"{target}: exists: name another or replace it with --overwrite"
        )


def _found(source: pathlib.Path, encoder: Any, family: str = "") -> list[str]:
    """Two lines that describe the encoder and its head."""
    from ctp_jax.train.state import count

    about = encoder.architecture
    kind = f"{family} {about['name']}".strip()
    numbers = f"width {about['width']}, epsilon {about['epsilon']}"
    line = f"{source}: {kind}, {numbers}, {count(encoder.params):,} parameters"
    if encoder.head is None:
        return [line, "  head: none"]
    size = f"{count(encoder.head):,} parameters"
    if "classifier" in encoder.head:
        what = f"{encoder.head['classifier']['bias'].size} classes"
    elif encoder.head_task == "ctp":
        what = f"{encoder.head['dense2']['bias'].size // 4} boxes"
    else:
        what = ", ".join(sorted(encoder.head))
    return [line, f"  head: {encoder.head_task}, {what}, {size}"]


def _differences(architecture: Mapping[str, Any], family: Any) -> list[str]:
    """What has to be set where the file is loaded."""
    lines = []
    if architecture["epsilon"] != family.epsilon:
        lines.append(
            f"  note: BatchNorm's eps is {family.epsilon} in {family.name}'s networks; "
            f"set it to {architecture['epsilon']} in each BatchNorm3d"
        )
    if architecture["width"] != 1:
        lines.append(
            f"  note: {family.name}'s networks are of width 1.0; this one has "
            f"{architecture['channels']} channels"
        )
    return lines


def _overrides(target: str, architecture: Mapping[str, Any]) -> str:
    """The overrides that make a config start from this encoder."""
    from ctp_jax.models.base import OPTIONAL

    fields = {"init_from": target, "model.name": architecture["name"]}
    usual = {"width": 1.0, "epsilon": 1e-3, **OPTIONAL}
    # What the weights were trained with, which is not part of them.
    if architecture["name"] in models.PUBLISHED:
        usual["temporal_strides"] = [1, 2, 2, 2]
    for name, default in usual.items():
        if architecture.get(name, default) != default:
            fields[f"model.{name}"] = architecture[name]
    return " ".join(
        f"--config.{name}={shlex.quote(str(value))}" for name, value in fields.items()
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
