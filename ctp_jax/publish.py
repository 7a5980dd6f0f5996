"""Makes a folder that can be uploaded: `python -m ctp_jax.publish RUN FOLDER`."""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from packaging import licenses

from ctp_jax import cli, convert, formatting, results
from ctp_jax.errors import UserError, refusals
from ctp_jax.flags import Flags
from ctp_jax.storage import files

FLAGS = Flags()
NAME = FLAGS.string("name", "", "Title of the model card; default: name of the folder.")
LICENCE = FLAGS.string(
    "licence",
    "",
    "Of the weights, as SPDX writes it: apache-2.0, cc-by-nc-4.0, ...; or other, unknown.",
)
ENCODER_ONLY = FLAGS.boolean("encoder_only", False, "Leave the head out.")
OVERWRITE = FLAGS.boolean("overwrite", False, "Replace such a folder that is there.")
cli.define_allow_code(FLAGS)

_SAFETENSORS = "model.safetensors"
_OPTIMIZER = ("name", "learning_rate", "schedule", "weight_decay")


def main(arguments):
    """Makes a folder of an encoder that can be uploaded as it is.

    python -m ctp_jax.publish RUN FOLDER --licence=apache-2.0 [--name="R3D-18, UCF-101"]

    RUN is what config.init_from may name. Writes the encoder, the same weights for PyTorch as
    model.safetensors, and a model card, README.md, from what the run has noted. Paths, names
    of users and of machines are in none of them.
    """
    wrong = []
    if len(arguments) != 2:
        wrong.append(f"{formatting.count(len(arguments), 'path')}: give RUN and FOLDER")
    if not LICENCE.value:
        wrong.append("--licence is missing: say --licence=apache-2.0, or unknown")
    elif not _is_licence(LICENCE.value):
        wrong.append(
            f"--licence={LICENCE.value}: not in https://spdx.org/licenses: an identifier "
            "of these, or other, or unknown"
        )
    if wrong:
        raise UserError("; ".join(wrong))
    for line in publish(
        arguments[0],
        files.absolute(arguments[1]),
        NAME.value,
        LICENCE.value,
        ENCODER_ONLY.value,
        OVERWRITE.value,
    ):
        print(line)


def _is_licence(text: str) -> bool:
    """Whether model hubs know it: by SPDX, or that it is `other` or `unknown`."""
    with contextlib.suppress(licenses.InvalidLicenseExpression):
        return text in ("other", "unknown") or bool(
            licenses.canonicalize_license_expression(text)
        )
    return False


def publish(
    run: str,
    folder: pathlib.Path,
    name: str = "",
    licence: str = "unknown",
    encoder_only: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Writes the folder; returns lines for the user.

    Args:
        run: what `config.init_from` may name.
        folder: to write.
        name: title of the model card.
        licence: of the weights.
        encoder_only: leave the head out.
        overwrite: replace a folder that is an encoder.

    Raises:
        UserError: there is no encoder, or the folder is there.
    """
    from ctp_jax.train.checkpoints import export, init_from
    from ctp_jax.train.state import count

    convert.check_free(folder, overwrite, convert.is_encoder(folder))
    encoder = init_from.read(run)
    if encoder_only:
        encoder = encoder.without_head()
    lines = [f"{encoder.path}: {count(encoder.params):,} parameters"]
    with refusals(folder):
        export.write_encoder(folder, encoder)
        others = _write_for_torch(folder, lines)
        # What was written: without folders.
        about = export.read_about(folder)
        text = card(about, count(encoder.params), name or folder.name, licence, others)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return [*lines, f"wrote {folder}: upload it as it is, see docs/weights.md"]


def _write_for_torch(folder: pathlib.Path, lines: list[str]) -> str:
    """Writes the weights for PyTorch, with the head if it has names there; a line for the card."""
    for encoder_only in (False, True):
        try:
            target = folder / _SAFETENSORS
            lines += convert.export_file(folder, target, "", encoder_only)[-1:]
            without = ", without the head" * encoder_only
            return f"`{_SAFETENSORS}`: the same weights for PyTorch{without}"
        except UserError as error:
            reason = error
    lines.append(f"note: no {_SAFETENSORS}: {reason}")
    return ""


def card(
    about: Mapping[str, Any], parameters: int, name: str, licence: str, others: str
) -> str:
    """The model card of an exported encoder, as Markdown with the header of a hub.

    Args:
        about: contents of its `encoder.json`.
        parameters: of the encoder, how many.
        name: title.
        licence: of the weights.
        others: a line about further files, or ''.
    """
    provenance, architecture = about["provenance"], about["architecture"]
    config = provenance.get("config", {})
    task, data = provenance.get("task", ""), config.get("data", {})
    header = {
        "license": licence.lower(),
        "library_name": "ctp_jax",
        "tags": ["video", "self-supervised-learning", "jax", "flax"],
    }
    optimizer = config.get("optimizer", {})
    rows = {
        "network": f"{architecture['name']}, width {architecture['width']:g}",
        "parameters": f"{parameters:,}, without the head",
        "head": about["head_task"] or "none",
        "task": task,
        "data": ", ".join(
            f"{what} {data[what]}" for what in ("name", "split") if data.get(what)
        ),
        "source": provenance.get("source", ""),
        "started from": config.get("init_from", ""),
        "steps": provenance.get("steps", ""),
        "epochs": _number(provenance.get("epochs", "")),
        "batch size": config.get("batch_size", ""),
        "optimiser": ", ".join(
            f"{what} {optimizer[what]}" for what in _OPTIMIZER if what in optimizer
        ),
        "clips": ", ".join(
            f"{what} {config.get('clip', {}).get(what)}"
            for what in ("num_frames", "strides", "size")
            if what in config.get("clip", {})
        ),
        "date": str(provenance.get("date", ""))[:10],
        **provenance.get("versions", {}),
    }
    measured = provenance.get("metrics") or {}
    where = f" on split `{data['eval_split']}`" * bool(data.get("eval_split"))
    name_of_data = _plain(data.get("name", "")) or "the data set"
    use = (
        "```python\nimport ctp_jax\n\n"
        'encoder = ctp_jax.load_encoder("this folder")  # or hf://OWNER/NAME\n'
        'features = encoder(ctp_jax.read_clips("video.mp4", encoder.spec))\n```'
    )
    terms = (
        f"Of the weights: {_plain(licence)}. The videos that they were trained on have "
        "terms of their own."
    )
    parts = [
        "---\n"
        + "\n".join(f"{k}: {json.dumps(v)}" for k, v in header.items())
        + "\n---",
        f"# {_plain(name)}",
        "An encoder of video clips, pretrained with ctp_jax"
        + (f" by the task `{_plain(task)}`." if task else "."),
        use,
        "Files: `encoder.json` and `arrays/`, the encoder"
        + (f"; {others}." if others else "."),
        "## Origin",
        _table(rows),
        f"## Measured{where}",
        _measured(measured, name_of_data) if measured else "Nothing.",
        "## Licence",
        terms,
        "## Config",
        "```json\n" + json.dumps(config, indent=1) + "\n```" if config else "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _measured(values: Mapping[str, Any], data: str) -> str:
    """A line for each metric: its value and baseline, the videos, what it is."""
    heads = ("number", "value", "without a network", "on", "what it is")
    rows = []
    for name, each in results.results(values).items():
        known = [(each.baseline, each.how), *each.more]
        beside = ", ".join(f"{results.show(name, v)}, {how}" for v, how in known if how)
        on = formatting.count(each.videos, "held-out video") if each.videos else ""
        cells = (
            f"{_plain(results.label(name))} (`{_plain(name)}`)",
            results.show(name, each.value, each.error),
            beside or "–",
            f"{on or 'held-out videos'} of {data}",
            results.meaning(name) or "–",
        )
        rows.append(cells)
    note = (
        "±: the standard error of a share of the videos. Values are of the last step."
    )
    return "\n".join([*formatting.markdown(heads, rows), "", note])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(text: Any) -> str:
    """Text that is no Markdown and no second column of a table."""
    return " ".join(str(text).replace("|", "/").replace("`", "'").split())


def _table(values: Mapping[str, Any]) -> str:
    rows = [(_plain(k), _plain(v)) for k, v in values.items() if v not in ("", [])]
    return "\n".join(formatting.markdown(("", ""), rows))


if __name__ == "__main__":
    cli.run(main, FLAGS)
