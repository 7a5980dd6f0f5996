"""Converts checkpoints of PyTorch into encoders of ours, and back.

python -m ctp_jax.convert SOURCE TARGET
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ctp_jax import cli
from ctp_jax.errors import UserError, is_disk_full

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Converts a file into a folder, or a folder into a file; returns the exit code."""
    cli.quiet()
    # A copy of a few arrays: it needs no accelerator, and takes none from others.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        source = pathlib.Path(arguments.source).expanduser()
        target = pathlib.Path(arguments.target).expanduser().absolute()
        convert = export_file if source.is_dir() else import_file
        print("\n".join(convert(source, target, arguments)))
        return 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        UserError: for flags that are wrong.
    """
    parser = _Parser(
        "python -m ctp_jax.convert",
        description="Converts a checkpoint of PyTorch (.pth, .pt, .pth.tar, "
        ".safetensors) into an exported encoder, a folder, for config.init_from; or "
        "an exported encoder into such a file.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a file; or a workdir, or its encoder folder")
    add("target", metavar="TARGET", help="the folder to make; or the file")
    add("--from", dest="family", default=None, choices=["auto", "pyvrl", "torchvision", "imagenet", "vcop"], help="whose names a file has; default auto: found from the names")  # fmt: skip
    add("--to", default=None, choices=["pyvrl", "torchvision", "vcop"], help="whose names to write; default pyvrl, the authors' release, and vcop for C3D")  # fmt: skip
    add("--encoder_only", action="store_true", help="leave the head out")
    add("--overwrite", action="store_true", help="replace the target, once the new one is whole")  # fmt: skip
    return parser.parse_args(argv)


def import_file(
    source: pathlib.Path, target: pathlib.Path, arguments: argparse.Namespace
) -> list[str]:
    """Makes an exported encoder of a file of PyTorch; returns what to tell.

    Raises:
        UserError: the file does not hold what we have, or the target is in the way.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    from ctp_jax.interop import from_torch, state_dicts

    if arguments.to:
        raise UserError(f"--to={arguments.to}: for exporting, and {source} is a file")
    if state_dicts.is_file_name(target):
        raise UserError(
            f"{target}: from a file the target is a folder; for other names, convert "
            "to a folder first and from there to a file"
        )
    _check_free(target, arguments.overwrite, _is_encoder(target))
    state = state_dicts.read(source)
    imported = from_torch.convert(
        state.tensors,
        state.about,
        str(source),
        arguments.family or "auto",
        {"source": source.name, "sha256": state.sha256},
    )
    encoder = imported.encoder
    if arguments.encoder_only:
        encoder = dataclasses.replace(encoder, head=None, head_task="")
    _write_encoder(target, encoder)
    lines = [*_found(source, encoder, imported.family.name)]
    if imported.prefix:
        lines.append(f"  encoder: the names that begin with {imported.prefix}")
    unused = [f"{name} ({number})" for name, number in imported.unused.items()]
    lines.append(f"  unused tensors: {', '.join(unused) or 'none'}")
    if imported.family.note:
        lines.append(f"  note: {imported.family.note}")
    flags = _flags(arguments.target, encoder.architecture)
    return [
        *lines,
        f"wrote {target}",
        "go on: python -m ctp_jax.main --config=CONFIG --workdir=DIR " + flags,
    ]


def export_file(
    source: pathlib.Path, target: pathlib.Path, arguments: argparse.Namespace
) -> list[str]:
    """Makes a file for PyTorch of an exported encoder; returns what to tell.

    Raises:
        UserError: the names chosen cannot express it, or the target is in the way.
    """
    from ctp_jax.interop import names, state_dicts, to_torch
    from ctp_jax.train.checkpoints import export

    if arguments.family:
        raise UserError(
            f"--from={arguments.family}: for files, and {source} is a folder"
        )
    if not state_dicts.is_file_name(target):
        endings = ", ".join(state_dicts.SUFFIXES)
        raise UserError(f"{target}: from a folder the target is a file: {endings}")
    _check_free(target, arguments.overwrite, target.is_file())
    encoder = export.load_encoder(source)
    usual = "vcop" if encoder.architecture.get("name") == names.C3D else "pyvrl"
    family = names.FAMILIES[arguments.to or usual]
    tensors = to_torch.convert(encoder, family, not arguments.encoder_only)
    if arguments.encoder_only:
        encoder = dataclasses.replace(encoder, head=None, head_task="")
    # Users of other code bases load the file itself as a state dict.
    bare = family is not names.PYVRL
    state_dicts.write(target, tensors, to_torch.about(encoder, family), bare)
    lines = [*_found(source, encoder), *_differences(encoder.architecture, family)]
    lines.append(f"wrote {target}: {len(tensors)} tensors, names of {family.name}")
    return lines


def _is_encoder(path: pathlib.Path) -> bool:
    """Whether a folder may be replaced: by no mistake does one with other files."""
    return path.is_dir() and (
        (path / "encoder.json").is_file() or not any(path.iterdir())
    )


def _check_free(target: pathlib.Path, overwrite: bool, same_kind: bool) -> None:
    if not (target.exists() or target.is_symlink()):
        return
    if not same_kind:
        raise UserError(
            f"{target}: is there and is something else; name another target"
        )
    if not overwrite:
        raise UserError(f"{target}: is there already; --overwrite replaces it")


def _write_encoder(target: pathlib.Path, encoder: Any) -> None:
    from ctp_jax.train.checkpoints import export

    try:
        export.write_encoder(target, encoder)
    except Exception as error:
        full = is_disk_full(error)
        if not (full or isinstance(error, OSError)):
            raise
        reason = "the disk is full" if full else error.strerror
        raise UserError(f"{target}: cannot be written: {reason}") from error


def _found(source: pathlib.Path, encoder: Any, family: str = "") -> list[str]:
    """Two lines: the encoder and its head."""
    about = encoder.architecture
    kind = f"{family} {about['name']}".strip()
    numbers = f"width {about['width']}, epsilon {about['epsilon']}"
    line = f"{source}: {kind}, {numbers}, {_size(encoder.params):,} parameters"
    if encoder.head is None:
        return [line, "  head: none"]
    size = f"{_size(encoder.head):,} parameters"
    if "classifier" in encoder.head:
        what = f"{encoder.head['classifier']['bias'].size} classes"
    elif encoder.head_task == "ctp":
        what = f"{encoder.head['dense2']['bias'].size // 4} boxes"
    else:
        what = ", ".join(sorted(encoder.head))
    return [line, f"  head: {encoder.head_task}, {what}, {size}"]


def _size(tree: Any) -> int:
    if isinstance(tree, Mapping):
        return sum(_size(child) for child in tree.values())
    return tree.size


def _differences(architecture: Mapping[str, Any], family: Any) -> list[str]:
    """What someone who loads the weights there has to set."""
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


def _flags(target: str, architecture: Mapping[str, Any]) -> str:
    """The overrides with which a config starts from an encoder."""
    from ctp_jax.models.base import OPTIONAL

    flags = {"init_from": target, "model.name": architecture["name"]}
    usual = {"width": 1.0, "epsilon": 1e-3, **OPTIONAL}
    for name, default in usual.items():
        if architecture.get(name, default) != default:
            flags[f"model.{name}"] = architecture[name]
    return " ".join(
        f"--config.{name}={shlex.quote(str(value))}" for name, value in flags.items()
    )


if __name__ == "__main__":
    sys.exit(main())
