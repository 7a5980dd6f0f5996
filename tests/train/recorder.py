"""An evaluator that records its calls, in one list for all instances."""

from ctp_jax.evaluators.base import Evaluator

LOOKS_AT = "predictions"
LOG: list = []


class Recorder(Evaluator):
    """Its options give its name and whether it needs a gallery."""

    def __init__(self, name, needs_gallery):
        self.name, self.needs_gallery = name, needs_gallery

    def reset(self):
        LOG.append((self.name, "reset"))

    def update_gallery(self, batch, outputs):
        LOG.append((self.name, "gallery", rows(batch)))

    def update(self, batch, outputs):
        assert len(outputs["class"]) == len(batch["mask"])
        LOG.append((self.name, "videos", rows(batch)))

    def results(self):
        yield "one", 1.0

    def notes(self):
        return [f"note of {self.name}"]

    def save(self, directory):
        (directory / "file").write_text(self.name)


def rows(batch):
    return batch["index"][batch["mask"] > 0].tolist()


def make(options, subject):
    return Recorder(options.own_name, options.needs_gallery)
