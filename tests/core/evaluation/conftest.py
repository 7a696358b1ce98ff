"""A small result of drawn counts."""

import pytest

from tests.core.evaluation.drawn import draw_result


@pytest.fixture
def result():
    return draw_result()
