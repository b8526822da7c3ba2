"""Networks to attack and defend; the seed of each draws its initial weights."""

from tinyadv.models.mnist import LeNet, MadryCNN, SmallCNN

__all__ = ["LeNet", "MadryCNN", "SmallCNN"]
