"""`python -m tinyadv` prints what the library found on this machine."""

from tinyadv.backend import describe

print(describe())
