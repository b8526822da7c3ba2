"""Packaging of tinyadv. It only reads text files: nothing here imports the package."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = (HERE / "README.md").read_text(encoding="utf-8")

# The address under which the files of this release can be read, given when it is built. On the page of a package index
# the README's links and figures become links there; without an address they become plain text.
FILES = os.environ.get("TINYADV_FILES", "").rstrip("/")
LINK = re.compile(r"!?\[([^]]+)\]\((?!https?:)([^)]+)\)")
PAGES = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md", "Source": "README.md"}

TEST = ["pytest>=8", "pytest-xdist", "hypothesis", "setuptools>=77"]
CLUSTERS, FRAMEWORKS = ["distributed", "mpi4py", "mpich"], ["jax", "onnx", "onnxruntime", "safetensors", "scikit-learn"]
PARITY = ["torch==2.13.0", "torchattacks", "foolbox", "numba", "adversarial-robustness-toolbox", *CLUSTERS, *FRAMEWORKS]

setup(
    name="tinyadv",
    version=(HERE / "tinyadv" / "VERSION").read_text(encoding="utf-8").strip(),
    description="Adversarial machine learning in NumPy, small enough to read and exact enough to trust",
    long_description=LINK.sub(rf"[\1]({FILES}/\2)" if FILES else r"\1", README),
    long_description_content_type="text/markdown",
    author="The tinyadv developers",
    project_urls={name: f"{FILES}/{page}" for name, page in PAGES.items() if FILES},
    license_expression="MIT",
    classifiers=[
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # So that an editable install is found from the folder around the clone, too, where `tinyadv` is the clone itself.
    package_dir={"": "."},
    packages=find_packages(include=["tinyadv*"]),
    package_data={"tinyadv": ["VERSION", "py.typed", "models/weights/*"]},
    install_requires=["numpy>=2", "matplotlib", "pillow", "tqdm", "threadpoolctl", "pooch"],
    extras_require={
        "test": TEST,
        # Held to one minor release: a new rule enters the gate when we choose it, not when it is published.
        "dev": [*TEST, "ruff~=0.17.5", "mypy~=2.4.1"],
        "cuda12": ["cupy-cuda12x[ctk]"],
        "cuda13": ["cupy-cuda13x[ctk]"],
        "parity": PARITY,
        "bench": [*PARITY, "mygrad"],
        "release": ["build"],
        "notebook": ["jupytext", "nbclient", "ipykernel"],
        # Held below the releases that drop what mkdocs.yml uses; ruff lays out the signatures.
        "docs": ["mkdocs~=1.6", "mkdocs-material~=9.8", "mkdocstrings-python~=2.0", "mkdocs-glightbox~=0.5", "ruff"],
    },
)
