"""Networks to attack and defend; the argument `seed` of each draws its initial weights."""

from tinyadv.models import zoo
from tinyadv.models.cifar10 import AirbenchCNN, BaseCNN, CifarCNN
from tinyadv.models.densenet import DenseNet, densenet121
from tinyadv.models.mnist import IntervalCNN, LeNet, MadryCNN, SmallCNN, ThresholdCNN, VoterCNN
from tinyadv.models.preact import MadryResNet, PreActResNet18
from tinyadv.models.resnet import MnistResNet, ResNet, ResNet20, resnet18, resnet50
from tinyadv.models.vgg import VGG, vgg16, vgg16_bn
from tinyadv.models.vit import VisionTransformer
from tinyadv.spellings import missing

__all__ = [
    "VGG", "AirbenchCNN", "BaseCNN", "CifarCNN", "DenseNet", "IntervalCNN", "LeNet", "MadryCNN", "MadryResNet",
    "MnistResNet", "PreActResNet18", "ResNet", "ResNet20", "SmallCNN", "ThresholdCNN", "VisionTransformer", "VoterCNN",
    "densenet121", "resnet18", "resnet50", "vgg16", "vgg16_bn", "zoo",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
