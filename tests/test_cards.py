import numpy as np

from benchmarks import cards
from tinyadv import attacks, data, models


def test_images_that_are_proven_count_as_right_and_the_others_draw_what_they_would_draw_beside_them():
    model, (_, test) = models.LeNet(seed=1).eval(), data.digits(train=10, test=12)
    test = data.Dataset(test.images, model(test.images).data.argmax(axis=1), test.name)
    proven, attack = np.arange(12) % 3 == 1, attacks.PGD(0.1, steps=2)
    whole = attack.run(model, test.images, test.labels, seed=5, skip_misclassified=True)
    share, result = cards.left(model, attack, test, proven, 5)
    np.testing.assert_array_equal(result.x_adv, whole.x_adv[~proven])
    assert share == (whole.robust | proven).mean()
    assert 0 < share < 1
    assert cards.left(model, attack, test, np.ones(12, bool), 5)[0] == 1
