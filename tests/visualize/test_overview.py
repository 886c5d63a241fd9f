import numpy as np

from xmask3d.visualize.overview import HEAT, heat_colors


def test_heat_goes_from_the_first_to_the_last_colour_through_all_between() -> None:
    values = np.linspace(-3, 5, 10_001).astype(np.float32)
    low, high = np.percentile(values, (1, 99.5))
    places = np.clip((values - low) / (high - low), 0, 1) * (len(HEAT) - 1)
    wanted = np.stack([np.interp(places, np.arange(len(HEAT)), channel) for channel in HEAT.T], 1)
    colors = heat_colors(values)
    assert colors.dtype == np.uint8
    assert colors[0].tolist() == HEAT[0].tolist() and colors[-1].tolist() == HEAT[-1].tolist()
    assert np.abs(colors - wanted).max() < 1.5


def test_heat_of_nothing_and_of_equal_values() -> None:
    assert heat_colors(np.zeros(0)).shape == (0, 3)
    assert heat_colors(np.full(3, np.nan)).tolist() == [HEAT[0].tolist()] * 3
