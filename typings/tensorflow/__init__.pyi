"""TensorFlow is not checked: it ships no types, and the ones that pyright brings
describe a part of it, without `tensor[..., None]` or `tf.random.experimental`."""

from typing import Any

def __getattr__(name: str) -> Any: ...
