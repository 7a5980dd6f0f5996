"""What a workdir holds already: the results of a finished run, or of an evaluation."""

import contextlib
import pathlib

from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import metrics_file
from ctp_jax.errors import UserError
from ctp_jax.storage import files, untrusted
from ctp_jax.train.checkpoints import export


def exported_results(
    workdir: pathlib.Path, config: ConfigDict, steps: int
) -> tuple[dict[str, float], str] | None:
    """The metrics of a finished run, from its exported encoder.

    They are there when its checkpoints were deleted, too.

    Args:
        workdir: of the run.
        config: of this command.
        steps: the step that a finished run has reached.

    Returns:
        The metrics, and the fields in which this config evaluates otherwise; or None
        unless the encoder was exported at that step of a run that trains like this one.
    """
    with contextlib.suppress(UserError):
        provenance = export.read_about(workdir / "encoder")["provenance"]
        here = files.without_folders(config_lib.as_dict(config))
        differences = config_lib.differences(provenance.get("config", {}), here)
        changed, _ = config_lib.sort_differences(differences)
        if not changed and provenance.get("steps") == steps > 0:
            return provenance["metrics"], config_lib.other_results(differences)
    return None


def check_same_evaluation(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises `UserError` if a run of no steps would replace another one's numbers."""
    try:
        lines, _ = metrics_file.read(workdir / "metrics.jsonl")
        stored = untrusted.read_json(workdir / "config.json", "")
    except (OSError, UserError):
        return
    fields = config_lib.other_results(config_lib.differences(stored, config))
    if fields and any(line["kind"] == "eval" for line in lines):
        raise UserError(
            f"{workdir}: the evaluation there has another config: {fields}: use another "
            "--workdir"
        )
