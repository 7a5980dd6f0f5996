"""A folder to upload, and encoders from a hub."""

import json
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

import ctp_jax
from configs import finetune_small
from ctp_jax import config as config_lib
from ctp_jax import publish
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train.checkpoints import export, hub
from tests.commands import call
from tests.own_videos import made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An encoder as a checkpoint gives it: with paths in what is noted."""
    place = tmp_path_factory.mktemp("run") / "encoder"
    config = finetune_small.get_config()
    config.model.width = 0.03
    config.data.data_dir = config.init_from = "/home/somebody/data"
    task = base.load(config)
    task.class_names = made.CLASSES
    shapes = jax.eval_shape(task.init, jax.random.key(0), {})
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape, loc=1).astype("f4"), shapes
    )
    params, stats, architecture = task.encoder(variables)
    provenance = {
        "task": "recognition",
        "config": config_lib.as_dict(config),
        "class_names": list(made.CLASSES),
        "steps": 7,
        "metrics": {"top1": 0.5, "top1_chance": 0.1, "videos": 64, "odd": 2.0},
        "source": "/home/somebody/x.pth",
    }
    head = task.head(variables)
    encoder = export.Encoder(
        params, stats, architecture, head, "recognition", provenance, ""
    )
    export.write_encoder(place, encoder)
    return place, params


def test_the_folder_is_complete_and_says_nothing_private(run, tmp_path):
    folder = tmp_path / "weights"
    publish.publish(str(run[0]), folder, "A | name", "cc-by-4.0")
    names = {path.name for path in folder.iterdir()}
    assert names == {"encoder.json", "arrays", "model.safetensors", "README.md"}
    for path in folder.rglob("*"):
        for private in (b"somebody", str(tmp_path).encode()):
            assert path.is_dir() or private not in path.read_bytes(), path
    text = (folder / "README.md").read_text()
    header = text.split("---")[1].strip().splitlines()
    assert json.loads(header[0].removeprefix("license: ")) == "cc-by-4.0"
    for line in ("# A / name", "| steps | 7 |", "| source | x.pth |"):
        assert line in text.splitlines()
    # The standard error is sqrt(0.5 * 0.5 / 64).
    row = "| top-1 accuracy (`top1`) | 50.0 ± 6.2 % | 10.0 %, chance | 64 held-out videos "
    row += "of moving_shapes | share of videos whose class has the highest score |"
    assert row in text.replace("\u00a0", " ").splitlines()
    assert (
        "| odd (`odd`) | 2.000 | – | 64 held-out videos of moving_shapes | – |" in text
    )
    assert json.loads(text.split("```json")[1].split("```")[0])["batch_size"] == 16
    ours = ctp_jax.load_encoder(folder)
    for a, b in zip(
        *map(jax.tree.leaves, (ours.variables["params"], run[1])), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    sizes = sum(value.size for value in jax.tree.leaves(run[1]))
    assert sum(value.size for value in tensors.values()) > sizes
    with pytest.raises(UserError, match="exists: name another or replace it"):
        publish.publish(str(run[0]), folder)
    publish.publish(str(run[0]), folder, overwrite=True, encoder_only=True)
    assert export.load_encoder(folder).head is None


def test_addresses_of_a_hub(run, tmp_path, monkeypatch):
    """With a stand-in of its client."""
    publish.publish(str(run[0]), tmp_path / "hub" / "owner" / "name")
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        source, target = tmp_path / "hub" / name, tmp_path / "cache"
        if not source.exists():
            raise OSError(f"404: {name}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        (target / "model.safetensors").unlink()
        assert "model.safetensors" not in allow_patterns
        return str(target)

    client = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    found = ctp_jax.load_encoder("hf://owner/name@v1")
    assert asked == [("owner/name", "v1")] and found.path == "hf://owner/name@v1"
    assert ctp_jax.load_encoder("hf://owner/name").fingerprint() == found.fingerprint()
    with pytest.raises(UserError, match="hf://owner/none: cannot be downloaded .404"):
        ctp_jax.load_encoder("hf://owner/none")
    for address in ("hf://name", "hf://a/b/c", "hf://a/b@", "hf://../b c"):
        with pytest.raises(UserError, match="needs hf://OWNER/NAME"):
            hub.download(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        ctp_jax.load_encoder("hf://owner/name")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["run", "folder"],
            "--licence is missing: say --licence=apache-2.0, or unknown",
        ),
        (
            ["run", "--licence=apache2"],
            "1 path: give RUN and FOLDER; --licence=apache2: not in https://spdx.org",
        ),
    ],
)
def test_what_is_wrong_is_one_line(arguments, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        call(publish, *arguments)


@pytest.mark.parametrize("licence", ["CC-BY-4.0", "other"])
def test_licences_that_hubs_know(run, tmp_path, licence):
    call(publish, str(run[0]), str(tmp_path / "folder"), f"--licence={licence}")
    header = (tmp_path / "folder" / "README.md").read_text().splitlines()[1]
    assert header == f'license: "{licence.lower()}"'
