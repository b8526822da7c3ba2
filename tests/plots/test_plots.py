"""Drawing needs no pyplot and no display, and works in threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from matplotlib.image import imread
from plot_cases import attacked, dataset, model

from tinyadv import plots


def test_threads_draw_the_same_figure_at_a_time(tmp_path):
    clean = dataset(2, 1)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        figures = list(pool.map(lambda _: plots.adversarial_triples(model, clean, attacked(clean)), paths))
        list(pool.map(lambda figure, path: figure.savefig(path), figures, paths))
    first, *others = [imread(path) for path in paths]
    assert first.shape == (600, 750, 4)
    assert all(np.array_equal(first, other) for other in others)


def test_drawing_and_saving_leave_pyplot_alone(tmp_path):
    code = ("import sys; from tinyadv import plots; plots.epsilon_curve({'a': {0: 1}}).savefig(sys.argv[1]); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "curve.pdf"]).returncode == 0
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")
