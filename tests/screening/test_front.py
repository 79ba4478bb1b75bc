"""The front of several wishes: by hand, and as a property."""

import numpy as np

from defectkit.screening.funnel import front


def test_whom_another_is_as_good_as_in_all_and_better_in_one_is_beaten():
    costs = np.array([[0, 3], [1, 1], [3, 0], [2, 2], [1, 2], [1, 1]], float)
    assert front(costs).tolist() == [True, True, True, False, False, True]


def test_every_row_outside_the_front_is_beaten_by_one_on_it():
    costs = np.random.default_rng(0).integers(0, 6, (80, 3)).astype(float)
    best = front(costs)
    assert 0 < best.sum() < len(costs)
    for row in costs[~best]:
        rivals = costs[best]
        assert ((rivals <= row).all(axis=1) & (rivals < row).any(axis=1)).any()
    for row in costs[best]:
        assert not ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()
