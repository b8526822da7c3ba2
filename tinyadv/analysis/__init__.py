"""What a network sees: from a model and images to arrays. The figures of them are in `plots`."""

from tinyadv.analysis.saliency import correlation, grad_cam, guided_saliency, saliency

__all__ = ["correlation", "grad_cam", "guided_saliency", "saliency"]
