# %% [markdown]
# # A tour of adversarial robustness
#
# A network that reads digits well can be fooled by changes that do not bother a human reader. This tour shows how an
# attack finds such changes, what they look like, how a network can be trained to withstand them, and how to prove that
# no change can succeed. It begins with the data and ends with a proof.
#
# Every number and figure below comes from running the cells from top to bottom, which takes about two minutes on two
# cores. All random numbers come from one seed. Still, another machine rounds differently, and training makes the
# difference larger: your numbers will be close to these, and not equal. The text was written for MNIST. Without it
# and without a connection, the tour goes on with digits that the library draws by itself.

# %%
from tinyadv import Tensor, analysis, attacks, certify, data, evaluation, gradients, models, nn, ops, plots, training

import numpy as np  # after tinyadv, which chooses NumPy's fastest kernels

# %matplotlib inline

# %% tags=["settings"]
SEED = 42
EPS = 0.2                     # the budget: how much each pixel may change
BUDGETS = [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
TRAIN, TEST = 20_000, 1_000   # images to train on, and to test
FEW, FEWER = 200, 40          # images to attack, and to attack thoroughly
EPOCHS, STEPS = 4, 40         # passes over the training images; steps of an attack

# %% [markdown]
# ## 1. Data
#
# An image is an array (1, 28, 28): one channel, 28 rows, 28 columns. 0 is black and 1 is white. A `Dataset` holds
# many images, their labels and a name. `test[:200]` is a smaller `Dataset`.

# %%
try:
    train, test = data.mnist()
except data.DataUnavailable:
    train, test = data.digits()
train, test, few = train[:TRAIN], test[:TEST], test[:FEW]
digits = test[[int(np.argmax(test.labels == k)) for k in range(10)]]  # the first image of each class
print(train, test, sep="\n")
plots.grid(digits.images[None], columns=digits.classes, title=f"{test.name}: one image of each class")

# %% [markdown]
# ## 2. A network
#
# Two convolutions halve the image twice, and two dense layers decide. The outputs are ten *logits*, one score for each
# class; the largest one wins. Training lowers the *loss*, here the cross entropy: minus the logarithm of the
# probability that the network gives to the right class.

# %%
def network():
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1, init="he_uniform", rng=rng), nn.ReLU(),   # (N, 16, 14, 14)
        nn.Conv2d(16, 32, 4, stride=2, padding=1, init="he_uniform", rng=rng), nn.ReLU(),  # (N, 32, 7, 7)
        nn.Flatten(), nn.Linear(1568, 100, init="he_uniform", rng=rng), nn.ReLU(),
        nn.Linear(100, 10, rng=rng))


def fit(model, **how):
    return training.fit(model, train, epochs=EPOCHS, optimizer=nn.optim.Adam(model, lr=2e-3), batch_size=64, seed=SEED,
                        schedule=nn.optim.one_cycle(peak=0.1), **how)


natural = network()
for epoch in fit(natural):
    print(f"epoch {epoch.epoch}: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.1%}")
print(f"\naccuracy on {len(test):,} images that it has never seen: {evaluation.accuracy(natural, test):.1%}")

# %% [markdown]
# ## 3. FGSM: one step uphill
#
# Training follows the slope of the loss with respect to the *weights*, downhill. An attack follows the slope with
# respect to the *pixels*, uphill. It may change each pixel by at most `EPS`. For a small step, the loss is nearly
# linear in the pixels, so the best step moves each pixel by the whole budget, in the direction that raises the loss:
#
#     x_adv = clip(x + eps * sign(slope), 0, 1)
#
# This is the *fast gradient sign method* (Goodfellow et al. 2015). Here it is by hand, beside the library's:

# %%
x, y = digits.images, digits.labels
pixels = Tensor(x)
loss = ops.cross_entropy(natural(pixels), y, reduction="sum")
(slope,) = gradients(loss, [pixels])  # (10, 1, 28, 28)
by_hand = (x + np.float32(EPS) * np.sign(slope)).clip(0, 1)

x_adv = attacks.FGSM(eps=EPS)(natural, x, y)
print(f"{(abs(by_hand - x_adv) < 1e-6).mean():.1%} of the pixels are the same")
print(f"largest change of a pixel: {abs(x_adv - x).max():.3g}")

# %%
shown = [2, 3, 5]
plots.adversarial_triples(natural, digits[shown], x_adv[shown], title=f"{test.name}: FGSM, ε = {EPS}")

# %% [markdown]
# You still read each digit without effort. The network does not, and it is often sure of its wrong answer.
#
# Is it the size of the change, or its direction? Random signs of the same size are the control experiment:

# %%
signs = np.random.default_rng(SEED).choice([-1, 1], test.images.shape)
noisy = (test.images + EPS * signs).clip(0, 1).astype(np.float32)
print(f"clean         {evaluation.accuracy(natural, test):.1%}")
print(f"random signs  {(evaluation.predict(natural, noisy) == test.labels).mean():.1%}")
print(f"FGSM          {evaluation.robust_accuracy(natural, attacks.FGSM(EPS), test):.1%}")

# %% [markdown]
# Random noise does little. The direction does the damage: each pixel adds a bit to the loss, all 784 pixels push the
# same way, and the bits become a lot.

# %% [markdown]
# ## 4. PGD: many small steps
#
# The loss is not linear, so one big step can miss. *Projected gradient descent* (Madry et al. 2018) starts at a random
# point within the budget. It then takes many small steps, and after each it returns to the nearest point within the
# budget. It keeps the best point it has seen. It costs forty times as much as FGSM here, and finds what FGSM misses.

# %%
curves = {
    "FGSM": evaluation.epsilon_curve(natural, attacks.FGSM(EPS), few, BUDGETS),
    f"PGD, {STEPS} steps": evaluation.epsilon_curve(natural, attacks.PGD(EPS, steps=STEPS), few, BUDGETS, seed=SEED),
}
plots.epsilon_curve(curves, title=f"{test.name}, {len(few)} images: accuracy under attack")

# %% [markdown]
# Read the curve as an upper bound. Nobody knows the worst change within the budget; an attack only finds a bad one. The
# true robust accuracy is at or below the lowest curve that anybody has found. So report the strongest attack you have,
# and never FGSM alone.

# %% [markdown]
# ## 5. What the noise looks like
#
# A budget needs a way to measure a change, a *norm*. `linf` is the largest change of a pixel: all pixels may move.
# `l2` is the length of the change as a vector: it pays to spend it on few, decisive pixels. The attack of Carlini and
# Wagner (2017) has no budget; it searches for the smallest l2 change that fools the network.

# %%
one = digits[[4]]
tried = {
    "FGSM, linf": attacks.FGSM(EPS),
    "PGD, linf": attacks.PGD(EPS, steps=STEPS),
    "FGSM, l2": attacks.FGSM(2.0, norm="l2"),
    "C&W, l2": attacks.CarliniWagner(steps=5 * STEPS, lr=0.05, initial_c=1.0),
}
found = np.concatenate([attack(natural, one.images, one.labels, seed=SEED) for attack in tried.values()])
noise = found - one.images
read = evaluation.predict(natural, found)
sizes = [f"linf {abs(each).max():.2f}\nl2 {np.linalg.norm(each):.2f}" for each in noise]
plots.grid(np.stack([noise, found]), rows=["noise", "image"], columns=list(tried), noise=[[True], [False]],
           captions=[sizes, [f"read as {k}" for k in read]], figure=plots.blank(6, 3.7))

# %% [markdown]
# Red pixels get brighter, blue ones darker; each map has its own scale. The signs of FGSM and PGD look like static and
# cover the whole image. The l2 changes gather where strokes are, or could be: the attack begins to close the top of the
# 4, which makes a 9. Carlini and Wagner's change is the smallest of all, and it is enough.

# %% [markdown]
# ## 6. Which pixels decide
#
# The *saliency* of a pixel is the size of the slope of the true class's logit there (Simonyan et al. 2014): how much
# the score changes if the pixel does. It costs one gradient.

# %%
maps = analysis.saliency(natural, x, y)  # (10, 28, 28), none below 0


def bright(maps):
    return (maps / maps.max(axis=(1, 2), keepdims=True))[:, None]  # (N, 1, 28, 28)


plots.grid(np.stack([x, bright(maps)])[:, 2:8], rows=["image", "saliency"], title="Bright pixels decide")

# %%
for name, attack in tried.items():
    match = analysis.correlation(attack(natural, x, y, seed=SEED) - x, maps).mean()
    print(f"{name:<10}  correlation of |noise| and saliency {match:.2f}")

# %% [markdown]
# The map of this network is speckled. Pixels far from any stroke have a say, so a change that means nothing to you
# means something to the network. The l2 attacks go where the saliency is high, and the number tells how closely. The
# linf attacks spend the whole budget on almost every pixel, so there is little to correlate.

# %% [markdown]
# ## 7. Adversarial training
#
# Train on the worst images instead of the given ones (Madry et al. 2018):
#
#     minimise over the weights   the mean of   max over |change| <= eps of   loss(x + change, y)
#
# PGD searches for the inner maximum: it attacks each batch with the present weights, and the update uses what it
# finds. In tinyadv, that is one more argument. Five steps suffice here. The budget grows during the first half of the
# training, because a new network learns nothing from images that it cannot yet withstand.

# %%
robust = network()
for epoch in fit(robust, attack=attacks.PGD(EPS, steps=5), eps_schedule=training.ramp(0.5)):
    print(f"epoch {epoch.epoch}: eps {epoch.eps:.2f}, accuracy under attack {epoch.accuracy:.1%}")

# %%
pgd = attacks.PGD(EPS, steps=STEPS)
networks = {"natural": natural, "robust": robust}
print("           clean   FGSM    PGD")
for name, model in networks.items():
    accuracies = [evaluation.robust_accuracy(model, attack, few, seed=SEED) for attack in (attacks.FGSM(EPS), pgd)]
    print(f"{name:<8}  {evaluation.accuracy(model, few):6.1%} {accuracies[0]:6.1%} {accuracies[1]:6.1%}")
plots.epsilon_curve({name: evaluation.epsilon_curve(model, pgd, few, BUDGETS, seed=SEED)
                     for name, model in networks.items()}, title=f"{test.name}: accuracy under PGD")

# %% [markdown]
# The clean accuracy hardly changes, and most images survive the attack that broke all of them before. Beyond the budget
# of training the accuracy falls again: a network is robust to what it was trained for. What has it learnt? Compare the
# saliency:

# %%
both = [bright(analysis.saliency(model, x, y)) for model in networks.values()]
plots.grid(np.stack([x, *both])[:, 2:8], rows=["image", *networks], title="Saliency, before and after")

# %% [markdown]
# The robust network has stopped listening to the black background. It looks at the strokes, as you do.

# %% [markdown]
# ## 8. AutoAttack: is the number to be believed?
#
# Many published defences fell soon after, because the attack that they were tested with was weak. *AutoAttack* (Croce
# and Hein 2020) is a fixed ensemble of four attacks with nothing to tune: two forms of PGD that choose their own step
# size, one that searches for the nearest error, and one that needs no gradient at all. Each attacks what the previous
# ones have left. Here it meets a network of the zoo that was trained with a budget of 0.3:

# %%
print("\n".join(str(models.zoo.card("mnist-lenet-linf")).splitlines()[:4]))

# %%
veteran, subject = models.zoo.load("mnist-lenet-linf"), test[:FEWER]
result = attacks.AutoAttack(eps=0.3).run(veteran, subject.images, subject.labels, seed=SEED, skip_misclassified=True)
print("attack    left  broken")
for name, left, broken, *_ in result.table:
    print(f"{name:<8}  {left:4}  {broken:6}")
for attack in (attacks.FGSM(0.3), attacks.PGD(0.3, step_size=0.01, steps=STEPS)):
    left = evaluation.robust_accuracy(veteran, attack, subject, seed=SEED)
    print(f"{type(attack).__name__} alone leaves {left:.1%}, AutoAttack {result.robust.mean():.1%}")

# %% [markdown]
# A few images are too few to rank networks. The card of each network in [the zoo](../docs/zoo.md) has the numbers for
# hundreds, and the warnings that AutoAttack gave.

# %% [markdown]
# ## 9. A proof
#
# An attack that fails proves nothing: the next one may succeed. A *certificate* proves that no change within the budget
# succeeds, whoever searches for it. The idea is simple: instead of an image, send a whole *box* of images through
# the network, an interval for each pixel. Each layer turns bounds of its inputs into bounds of its outputs:

# %%
w, low, high = np.array([2.0, -1.0]), np.array([0.1, 0.4]), np.array([0.3, 0.6])
centre, radius = (low + high) / 2, (high - low) / 2
print(f"2 a - b lies between {w @ centre - abs(w) @ radius:.1f} and {w @ centre + abs(w) @ radius:.1f}")

boxes = certify.Interval.around(few.images, EPS, (0, 1))
print(natural(boxes))  # the bounds of the ten logits of each image

# %% [markdown]
# If the lowest possible score of the right class is above the highest possible score of every other class, the image is
# certified. `certify.certified_accuracy` counts these images. It also adds a bound of all rounding errors, so the
# proof holds for the network as it runs, in float32.

# %%
for name, model in networks.items():
    print(f"{name:<8}  certified {float(certify.certified_accuracy(model, few, EPS)):.1%}")

# %% [markdown]
# Nothing, for both. The bounds grow with every layer, and an ordinary network lets them explode. So train for
# the proof: `training.Certified` makes the *bound* of the loss its loss (Gowal et al. 2018; Shi et al. 2021). It is
# adversarial training with a bound in place of an attack.

# %%
proven = models.IntervalCNN(seed=SEED, width=8)
training.fit(proven, train, epochs=2 * EPOCHS, optimizer=nn.optim.Adam(proven, lr=5e-3), batch_size=100, seed=SEED,
             method=training.Certified(EPS), eps_schedule=training.ramp(0.6), schedule=nn.optim.one_cycle(peak=0.2))
report = certify.certified_accuracy(proven, few, EPS, attack=pgd, seed=SEED)
print(f"clean {report.accuracy:.1%}, under PGD {report.robust_accuracy:.1%}, certified {float(report):.1%}")
print(f"PGD has broken no certified image: {report.consistent}")

# %%
plots.epsilon_curve({
    "under PGD": evaluation.epsilon_curve(proven, pgd, few, BUDGETS, seed=SEED),
    "certified": {eps: float(certify.certified_accuracy(proven, few, eps)) for eps in BUDGETS},
}, title=f"{test.name}: the truth lies between the lines")

# %% [markdown]
# The upper line is what one attack leaves, the lower one what is proven. The best attack that anybody will ever find
# leaves something between the two. Beyond the budget of training, the proof ends at once.
#
# The proven network even does better under PGD than the robust one, and pays with some clean accuracy. That is a
# property of easy images: on photographs, proofs still cost much of the accuracy.
#
# ## What to take home
#
# - The direction of a change matters more than its size: random noise of the same size does little.
# - An attack gives an upper bound of the robust accuracy, a certificate a lower one. A number without its attack and
#   its budget means nothing.
# - Robustness is trained, for one norm and one budget. It costs time, and on harder images accuracy. A proof costs
#   more.
#
# ## Where to go on
#
# [Attacks](../docs/attacks.md) derives FGSM in three norms, [training](../docs/training.md) has the other methods,
# [certificates](../docs/certificates.md) has the proof, [analysis](../docs/analysis.md) more pictures, and
# [results](../docs/results.md) repeats published experiments. The [examples](../examples/README.md) are short scripts
# of one idea each.
