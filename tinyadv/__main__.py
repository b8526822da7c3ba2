"""`python -m tinyadv` prints what the library found on this machine."""

import argparse

from tinyadv.backend import describe

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tinyadv",
        description="Print the versions of tinyadv, Python and NumPy, the BLAS kernels and threads, and the GPUs.",
        epilog="To see an attack, run examples/fgsm_mnist.py in a clone; docs/index.md is the documentation.")
    parser.parse_args()
    print(describe())
