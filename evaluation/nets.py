"""Networks of the evaluation. Each takes uint8 images [N, C, H, W] and normalises them itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from workflow.common.errors import UserError
from workflow.common.files import atomic
from workflow.common.readers.guard import reading

# The feature network's file in a dataset's folder of classifiers.
FEATURES = "features.safetensors"
LARGEST_SIDE = 4096  # pixels, and classes, of a stored network: more is a damaged file
# (mean, standard deviation) of pixels in [0, 1] as the papers' code has them, for grey and for colour. They are public
# constants: statistics of the data at hand would leak into gen2real.
NORMALISATION = {1: (0.1307, 0.3081), 3: (0.5, 0.5)}


class Classifier(nn.Module):
    """An image classifier: `features` maps uint8 [N, C, H, W] to [N, D], `head` maps those to logits [N, num_classes].

    Args:
        name: key of NETWORKS.
        image_shape: (C, H, W) with C 1 or 3.
        num_classes: number of logits.

    Raises:
        UserError: a channel count or an image size that the network does not take.
    """

    def __init__(self, name: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        if image_shape[0] not in NORMALISATION:
            raise UserError(f"images must have 1 or 3 channels, got shape {list(image_shape)}")
        self.name, self.image_shape, self.num_classes = name, tuple(image_shape), num_classes
        self.body = NETWORKS[name](image_shape)
        self.head = nn.Linear(_width(self.body, image_shape, name), num_classes)
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        mean, deviation = NORMALISATION[self.image_shape[0]]
        return self.body((images.float() / 255 - mean) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def lenet(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Body of the LeNet of GS-WGAN's and DPAC's evaluation code: 61,706 parameters at 1x28x28 with a head of 10."""
    body = nn.Sequential(
        nn.Conv2d(image_shape[0], 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    width = _width(body, image_shape, "lenet")
    return body.extend([nn.Linear(width, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()])


def gender_cnn(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Body of DPAC's CelebA gender classifier (no padding, dropout 0.5): flattens to 2048 at 3x32x32."""
    body = nn.Sequential(
        nn.Conv2d(image_shape[0], 32, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(0.5),
        nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(0.5),
        nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    width = _width(body, image_shape, "gender_cnn")
    return body.extend([nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.5)])


def vgg11_bn(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Body of VGG11 with batch norm, 512 features at 28x28 (first convolution padded to 32x32) and at 32x32."""
    layers: list[nn.Module] = []
    width = image_shape[0]
    for step in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if step == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            padding = 3 if not layers and image_shape[1] == 28 else 1
            layers += _conv_block(width, step, padding=padding)
            width = step
    return nn.Sequential(*layers, nn.Flatten())


def small(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Body of a CNN with batch norm and 128 features for one CPU core: the presets `quick` and `smoke`."""
    body = nn.Sequential(
        *_conv_block(image_shape[0], 16, kernel=5, stride=2, padding=2), *_conv_block(16, 32), nn.MaxPool2d(2),
        *_conv_block(32, 64), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return body.extend([nn.Linear(_width(body, image_shape, "small"), 128), nn.ReLU()])


NETWORKS = {"lenet": lenet, "gender_cnn": gender_cnn, "vgg11_bn": vgg11_bn, "small": small}


def utility_cnn(image_shape: tuple[int, int, int]) -> str:
    """Returns the papers' utility network for an image shape: LeNet for grey images, the gender CNN for colour."""
    return "lenet" if image_shape[0] == 1 else "gender_cnn"


def save(network: Classifier, path: Path) -> None:
    """Writes weights and architecture as safetensors, atomically."""
    metadata = {
        "network": network.name,
        "image_shape": "x".join(map(str, network.image_shape)),
        "num_classes": str(network.num_classes),
    }
    with atomic(path) as temporary:
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        temporary.write_bytes(serialized(tensors, metadata))


def load(path: Path) -> Classifier:
    """Reads a classifier that `save` wrote, in evaluation mode.

    Raises:
        UserError: the file is missing, or is none that `save` wrote.
    """
    with reading(path, "is not a stored classifier", maker="make it with `python -m evaluation.classifiers`"):
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        shape = tuple(int(size) for size in metadata["image_shape"].split("x"))
        classes = int(metadata["num_classes"])
        if len(shape) != 3 or not all(1 <= side <= LARGEST_SIDE for side in shape) or not 1 <= classes <= LARGEST_SIDE:
            raise ValueError(f"image_shape {list(shape)} and num_classes {classes} are none that it is made for")
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise ValueError("a weight is no finite number: it was trained at too high a rate, or is damaged")
        network = Classifier(metadata["network"], shape, classes)
        network.load_state_dict(tensors)
    return network.eval()


def _conv_block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


@torch.no_grad()
def _width(body: nn.Module, image_shape: tuple[int, int, int], name: str) -> int:
    training = body.training
    try:
        return body.eval()(torch.zeros(1, *image_shape)).shape[1]
    except RuntimeError:
        raise UserError(f"images {list(image_shape)} are too small for the network {name}") from None
    finally:
        body.train(training)
