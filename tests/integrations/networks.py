"""A tiny network with everything that a measurement could leave changed, and images for it."""

import random

import numpy as np
import torch
from torch import nn

CLASSES, IMAGES = 3, 16


class Network(nn.Module):
    """Logits [B, 3] of images [B, 3, 8, 8]: batch norm, dropout, a frozen layer, a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(4, CLASSES)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, images):
        self.calls += 1
        return self.head(self.dropout(self.frozen(self.norm(self.conv(images)).relu()).mean(dim=(2, 3))))


def network(seed=0):
    torch.manual_seed(seed)
    return Network()


def images(seed=1):
    """Normalised images [16, 3, 8, 8] and their labels."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(IMAGES, 3, 8, 8, generator=generator),
        torch.randint(0, CLASSES, (IMAGES,), generator=generator),
    )


def careless(module):
    """Measures a loss, and leaves behind everything that can be left behind."""
    inputs, labels = images(2)
    loss = nn.functional.cross_entropy(module(inputs), labels).item()
    module.train()
    with torch.enable_grad():
        nn.functional.cross_entropy(module(inputs), labels).backward()  # other batch-norm statistics, gradients
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    torch.rand(3), np.random.random(), random.random()
    module.double()
    return {"loss": loss}


def everything(module):
    """Copies of all parameters and buffers, and of what is known of them."""
    parameters = [(n, p.detach().clone(), p.requires_grad, p.grad) for n, p in module.named_parameters()]
    buffers = [(name, buffer.clone(), False, None) for name, buffer in module.named_buffers()]
    return parameters + buffers, [each.training for each in module.modules()]


def same_bits(first, second):
    """Whether two dictionaries of tensors hold the same bytes under the same names."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].cpu().numpy().tobytes() == second[name].cpu().numpy().tobytes()
        for name in first
    )
