"""Moving figures: every frame, in order, for as long as told."""

import re

import numpy as np
import pytest
from PIL import Image

from tinyadv import plots


def test_a_gif_shows_each_figure_for_its_time_and_begins_again(tmp_path):
    figures = [plots.lines({"a": ([1, 2], [k, 1])}, xlabel="x", ylabel="y") for k in range(3)]
    plots.animate(figures, tmp_path / "a.gif", seconds=0.25)
    with Image.open(tmp_path / "a.gif") as movie:
        assert (movie.n_frames, movie.info["loop"]) == (3, 0)
        shown = []
        for k in range(3):
            movie.seek(k)
            assert movie.info["duration"] == 250
            shown.append(np.asarray(movie.convert("RGB"), float))
    for k, (figure, frame) in enumerate(zip(figures, shown, strict=True)):
        figure.savefig(tmp_path / f"{k}.png", dpi=150)
        expected = np.asarray(Image.open(tmp_path / f"{k}.png").convert("RGB"), float)
        assert abs(frame - expected).mean() < 3
    assert not np.array_equal(shown[0], shown[2])


@pytest.mark.parametrize(("count", "path"), [(0, "a.gif"), (1, "a.png")])
def test_an_animation_of_nothing_or_of_another_kind_is_refused(count, path):
    with pytest.raises(ValueError, match=re.escape(f"path end in .gif; got {count} and {path}")):
        plots.animate([plots.blank(1, 1)] * count, path)


def test_the_ending_may_be_in_capitals(tmp_path):
    plots.animate([plots.blank(1, 1)], tmp_path / "a.GIF")
    assert (tmp_path / "a.GIF").read_bytes().startswith(b"GIF")


def test_frames_of_two_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("must all have one size, got [(150, 150), (300, 150)] pixels")):
        plots.animate([plots.blank(1, 1), plots.blank(2, 1)], tmp_path / "a.gif")


@pytest.mark.parametrize("seconds", [0, -1, 0.001, 1e9, float("nan"), "1", None])
def test_seconds_that_a_gif_cannot_tell_are_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match=r"seconds must be a number from 0\.01 to 655, got"):
        plots.animate([plots.blank(1, 1)], tmp_path / "a.gif", seconds=seconds)
