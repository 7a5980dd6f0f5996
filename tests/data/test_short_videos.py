"""Videos that are too short for a task are left out of what it sees."""

import numpy as np

from ctp_jax.data import records
from tests.data.test_fraction import make_records


def test_those_of_enough_frames_stay_in_their_order():
    opened = make_records([0, 1, 2, 0, 1])
    opened.num_frames[:] = [120, 121, 7, 300, 119]
    left = records.leave_out_shorter(opened, 121)
    assert left.ids.tolist() == opened.ids[[1, 3]].tolist()
    np.testing.assert_array_equal(left.num_frames, [121, 300])
    np.testing.assert_array_equal(left.offset, opened.offset[[1, 3]])


def test_where_none_is_long_enough_all_stay_to_be_refused():
    opened = make_records([0, 1])
    opened.num_frames[:] = 120
    assert len(records.leave_out_shorter(opened, 121)) == 2
