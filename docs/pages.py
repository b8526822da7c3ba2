"""Writes the pages that consist of numbers, from the files that hold them: `python docs/pages.py`.

results.md from the .json files of results/, which examples write, beside their figures; zoo.md from the cards of
models.zoo.
"""

import ast
import json
import re
from pathlib import Path

from PIL import Image

from tinyadv.models import zoo

DOCS = Path(__file__).parent
SCRIPTS = [DOCS.parent / "examples", DOCS.parent / "benchmarks"]
RESULTS = """# Results

After this page you know how this library's numbers compare with published experiments. Each section is one
script of `examples/` or, where another library is timed, of `benchmarks/`. The heading is the claim that the script
tests, and "Here" says whether it held. Then follow the command, what it took and on which machine, the figure and the
numbers. Published numbers are those of the source that the section names. `python docs/pages.py` writes this page from
the files in `docs/results/`.

## Why the zoo's figures differ a little

The [cards of the zoo](zoo.md) and the examples measure the same trained networks, with other random numbers: the cards
attack with seed 0, the examples with seed 42. So PGD starts at other points, and breaks a few other images. PGD with
100 steps leaves 92.75% of the 10,000 test images on the card of mnist-madry-linf, and 92.85% below. Larger differences
have another reason: some sections attack fewer images or take other steps, many train networks of their own, and those
on votes take more samples, of every 20th image.

An accuracy of n images has a standard error of about √(p (1 - p) / n): of 200 images at 50% that is 3.5 points, of
1,000 it is 1.6, of 10,000 it is 0.5. Differences of that size say nothing.

## Where the experiments come from

This project started from five documents. They name the experiments, networks and attacks that the library repeats:

- Fabrizio Vasquez Auqui, Luis Chahua Salguera, Anthony Guimarey Saavedra: "Adversarial Machine Learning", undated.
  Its tables I to III stand beside our numbers below, as do its sizes of steps and its remark on losses.
- Aaron Kelley, Rodrigo Fritz: "Interpretabilidad de los Ataques Adversarios", Universidad Nacional Autónoma de México,
  June 2021. From it come `models.LeNet` with more dense layers, `models.MnistResNet` and `models.CifarCNN`. Several
  sections repeat its figures, and say where a conclusion does not hold.
- Alejandro Castro Ros, Adnan Ben Mansour, Laurène Bouskila: "Adversarial Networks", December 2020. The
  figure of its network is lost; `models.BaseCNN` stands for it.
- U Kang: "Deep Learning: Adversarial Machine Learning", lecture at Seoul National University, undated. From it come
  `models.SmallCNN` and FGSM on it, the first example.
- "Defense on Image Recognition", notes on Madry et al. (2018, arXiv:1706.06083), without author or date. The sections
  on that paper's figures repeat what the notes describe.
"""
ZOO = """# The zoo

After this page you know which trained networks come with tinyadv, how each was trained, and how robust it is.
`models.zoo.load(name)` loads a network. `models.zoo.card(name)` is its card, and prints what this page shows. A network
that would make the package too large has only its card, with the command that trains it.

The accuracies are those on the first images of the test set; the tables give how many. They are measured on the
weights as they are shipped, rounded to float16. "CIFAR-10 (JPEG copy)" has the images of CIFAR-10 from JPEG files of
quality 75, so accuracies differ from those on the original. Each card also says how far its figures go: how much PGD
overstates the robust accuracy, what is left just beyond the budget, and what AutoAttack itself warns of (a sanity check
fails above 5% of the images, AutoAttack warns above 0.2%). For comparison: in linf 0.3, AutoAttack leaves
88.50% for the network of Madry et al. and 92.81% for that of TRADES, as AutoAttack's authors report.
What is certified is proven ([certificates](certificates.md)); the attacks then ran on the other images. Of a network
for votes only certified accuracies are measured; the clean one is that within 0. Two figures of one row may be of
different numbers of images: then the smaller set may by chance be the easier one, and more may be certified than
AutoAttack leaves.

`examples/configs/` has settings for [more networks](#not-trained-yet).

`python docs/pages.py` writes this page from the cards, and `python -m benchmarks.cards` makes a card.
"""


MORE = """## Not trained yet

Of these settings in `examples/configs/` there are no weights and no measurements, because most need a GPU. This command
trains one, here the simple network of Madry et al., and saves its weights; `python -m benchmarks.cards` makes the card:

```sh
python examples/madry_cifar10.py --config examples/configs/cifar10-madry-linf.toml --device cuda
```
"""


def size(radius):
    """8/255 for eight grey levels of 255, and other numbers as they are."""
    levels = round(255 * radius, 9)
    return f"{levels:g}/255" if 0 < levels <= 16 and levels % 1 == 0 else f"{radius:g}"


def table(rows):
    """A Markdown table; the first row is its head."""
    head, *rest = [[f"{cell:.2%}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


def results():
    """The page of results, as text."""
    sections = [RESULTS]
    for path in sorted((DOCS / "results").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        (script,) = (found for folder in SCRIPTS if (found := folder / f"{path.stem}.py").is_file())
        claim, _, text = ast.get_docstring(ast.parse(script.read_text("utf-8"))).partition("\n")
        heading = claim.removesuffix(".") + " (does not hold here)" * ("does not hold" in told["verdict"])
        verdict = re.sub("(?<=does not hold): (.+)", r" (\1)", told["verdict"])
        version, _, numpy, _, blas, *_ = told["machine"]
        sections.append("\n\n".join([
            f"## {heading}", re.sub(r"The\s+last\s+line\s+says", '"Here" says', text.strip()),
            f"Here: {verdict}.",
            f"```sh\n{told['command']}\n```",
            f"Seed {told['seed']}, {told['seconds']:,} seconds, on {told['data'].removeprefix('Dataset ')}; {version}, "
            f"{numpy}, {blas}.",
            *(f"![What {path.stem}.py has drawn](results/{path.stem}.{kind})" for kind in ("png", "gif")
              if path.with_suffix(f".{kind}").is_file()),
            *(f"{title}:\n\n{table(rows)}" for title, rows in told["tables"].items())]) + "\n")
    return "\n".join(sections)


def the_zoo():
    """The page of the networks, as text."""
    cards = [zoo.card(name) for name in zoo.cards()]
    settings = {path.stem: zoo.settings(path) for path in sorted((DOCS.parent / "examples" / "configs").glob("*.toml"))}
    head = ["network", "data", "budget", "parameters", "clean", "PGD-100", "AutoAttack", "with 4/3 of the budget",
            "certified"]
    overview, sections = [head], []
    for card in cards:
        under = {attack: [f"{row['accuracy']:.2%} of {row['images']:,}" for row in card.results
                          if re.match(attack, row["attack"]) and not re.search("loss|restarts", row["attack"])]
                 for attack in ("none", r"PGD\(.*steps=100\b", "AutoAttack")}
        beyond = [f"{found['accuracy_beyond']:.2%} of {found['images']:,}" for found in [card.autoattack] if found]
        proven = [f"{row['accuracy']:.2%} of {row['images']:,} at {size(row['radius'])}" for row in card.certificates]
        proven = proven[-2:-1] or proven  # of votes at several radii, that of the settings
        budget = settings[card.name]["evaluation"]
        overview.append([f"[{card.name}](#{card.name})", card.data.partition("-train")[0],
                         f"{budget['norm']} {size(budget['eps'])}", f"{card.parameters:,}",
                         *(one[0] if one else "" for one in (*under.values(), beyond, proven))])
        rows = [["attack", "images", "accuracy", "seed"], *(
            [f"`{row['attack']}`", f"{row['images']:,}", row["accuracy"], row["seed"]] for row in card.results)]
        sections.append("\n\n".join([
            f"## {card.name}",
            f"{card.summary} `models.{card.model}`, {card.parameters:,} parameters; data: {card.data}."
            + " The weights are not in the package: the command makes them." * (card.name not in zoo.names()),
            f"```sh\n{card.training}\n```",
            f"{card.seconds:,.0f} seconds, without validation, on {card.machine}; tinyadv {card.version}; SHA-256 of "
            f"the weights: `{card.sha256}`.", table(rows), "\n".join(f"- {sentence}" for sentence in card.limits),
            *([f"`evaluation.sanity_checks`, on 200 images: {card.passed}."] if card.checks else [])]) + "\n")
    rows = [["settings", "what they train", "epochs"], *(
        [f"`{name}.toml`", each["summary"], each["training"]["epochs"]] for name, each in settings.items()
        if name not in zoo.cards())]
    return "\n".join([ZOO, table(overview), "", *sections, MORE, table(rows), ""])


if __name__ == "__main__":
    for figure in (DOCS / "results").glob("*.png"):
        whole, share = Image.open(figure).convert("RGB"), 1.0
        while figure.stat().st_size > 60_000:  # a repository keeps every version of it
            small = whole.resize([round(share * side) for side in whole.size], Image.Resampling.LANCZOS)
            small.quantize(96, Image.Quantize.FASTOCTREE).save(figure, optimize=True)  # which keeps the lines' colours
            share *= 0.95
    for name, write in {"results.md": results, "zoo.md": the_zoo}.items():
        (DOCS / name).write_text(write(), encoding="utf-8")
