"""What a network sees: from a model and images to arrays. The figures of them are in `plots`."""

from tinyadv.analysis.boundary import first_error
from tinyadv.analysis.landscape import landscape
from tinyadv.analysis.saliency import correlation, grad_cam, guided_saliency, saliency
from tinyadv.analysis.spectra import fourier_sensitivity, noise_spectrum, radial_mean
from tinyadv.analysis.transfer import transfer_function
from tinyadv.spellings import missing

__all__ = [
    "correlation", "first_error", "fourier_sensitivity", "grad_cam", "guided_saliency", "landscape", "noise_spectrum",
    "radial_mean", "saliency", "transfer_function",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
