"""What tests check beside what they say: the types and shapes of arguments and results."""

import numpy as np
import pytest

from ctp_jax import formatting
from ctp_jax.ops import boxes


def test_shapes_and_types_are_checked_in_tests():
    box = np.zeros([2, 4], np.float32)
    assert boxes.iou_xyxy(box, box).shape == (2,)
    with pytest.raises(Exception, match="parameter 'b'"):
        boxes.iou_xyxy(box, box[:, :3])
    with pytest.raises(Exception, match="violates"):
        formatting.count("two", "video")
