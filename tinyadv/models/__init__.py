"""Networks to attack and defend; the argument `seed` of each draws its initial weights."""

from tinyadv.models import zoo
from tinyadv.models.cifar10 import CifarCNN
from tinyadv.models.mnist import LeNet, MadryCNN, SmallCNN, ThresholdCNN
from tinyadv.models.resnet import MadryResNet, ResNet20

__all__ = ["CifarCNN", "LeNet", "MadryCNN", "MadryResNet", "ResNet20", "SmallCNN", "ThresholdCNN", "zoo"]
