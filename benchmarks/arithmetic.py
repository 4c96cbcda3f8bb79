"""Operations that trainings and scores are made of, each on inputs of its own, for a comparison bit by bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from torch.nn import functional

Draw = Callable[..., torch.Tensor]
PRODUCTS = ((1, 100, 10), (7, 5, 3), (64, 784, 100), (300, 400, 200), (17, 2000, 90))
# Images, channels in, size, channels out, kernel, stride, padding.
CONVOLUTIONS = ((16, 1, 28, 16, 5, 1, 0), (64, 8, 14, 16, 3, 1, 1), (16, 3, 32, 32, 4, 2, 1), (1, 16, 8, 16, 3, 1, 1),
                (32, 16, 8, 32, 1, 1, 0))  # fmt: skip
ROOTS = ("sqrt", "log", "log10", "rsqrt", "lgamma")  # of which the others take negative numbers too
FUNCTIONS = (*ROOTS, "exp", "tanh", "sigmoid", "erf", "erfinv", "sin", "cos", "tan", "asin", "acos", "atan", "log1p",
             "expm1")  # fmt: skip


def results(seed: int = 0) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields the name of an operation and the arrays that it computes on numbers in [-1, 1] that follow from `seed`."""
    for name, operation in _operations().items():
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int, of: torch.Generator = generator) -> torch.Tensor:
            return torch.rand(*shape, generator=of) * 2 - 1

        found = operation(draw)
        yield name, [one.detach().numpy() if isinstance(one, torch.Tensor) else np.asarray(one) for one in found]


def _operations() -> dict[str, Callable[[Draw], Any]]:
    found: dict[str, Callable[[Draw], Any]] = {"normal draws": _normal}
    found |= {f"product {' x '.join(map(str, sizes))}": _product(*sizes) for sizes in PRODUCTS}
    found["batched product"] = lambda draw: [torch.bmm(draw(10, 20, 300), draw(10, 300, 30))]
    found["einsum"] = lambda draw: [torch.einsum("bij,bjk->ik", draw(5, 6, 7), draw(5, 7, 8))]
    for sizes in CONVOLUTIONS:
        for layout in (torch.contiguous_format, torch.channels_last):
            kind = " channels last" if layout is torch.channels_last else ""
            found[f"convolution {' '.join(map(str, sizes))}{kind}"] = _convolution(*sizes, layout)
    found["transposed convolution"] = _transposed
    found |= {f"torch {name}": _function(name) for name in FUNCTIONS}
    found |= {"NumPy functions": _numpy_functions, "SciPy functions": _scipy_functions}
    found |= {"sums": _sums, "norms of layers": _norms, "losses": _losses, "resizing": _resized}
    found |= {"torch factorisations": _torch_factors, "NumPy and SciPy factorisations": _numpy_factors}
    found |= {f"{kind.__name__} {'fused' if fused else 'by steps'}": _optimiser(kind, fused)
              for kind in (torch.optim.Adam, torch.optim.SGD) for fused in (False, True)}  # fmt: skip
    found |= {"scikit-learn's perceptron": _perceptron, "nearest neighbours": _neighbours}
    return found


def _normal(_: Draw) -> list[Any]:
    single, double = torch.Generator().manual_seed(1), np.random.default_rng(1)
    return [torch.randn(2000, generator=single), double.normal(size=2000)]


def _product(rows: int, inner: int, columns: int) -> Callable[[Draw], Any]:
    def products(draw: Draw) -> list[Any]:
        a, b = draw(rows, inner), draw(inner, columns)
        single, double = (a.numpy(), b.numpy()), (a.double().numpy(), b.double().numpy())
        return [a @ b, a @ b.T.contiguous().T, a.double() @ b.double(), single[0] @ single[1], double[0] @ double[1]]

    return products


def _convolution(
    count: int, channels: int, size: int, out: int, kernel: int, stride: int, padding: int, layout: torch.memory_format
) -> Callable[[Draw], Any]:
    def convolution(draw: Draw) -> list[Any]:
        x, weight = draw(count, channels, size, size).requires_grad_(), draw(out, channels, kernel, kernel)
        weight, bias = weight.requires_grad_(), draw(out).requires_grad_()
        laid = x.to(memory_format=layout), weight.to(memory_format=layout)
        y = functional.conv2d(*laid, bias, stride=stride, padding=padding)
        return [y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))]

    return convolution


def _transposed(draw: Draw) -> list[Any]:
    inputs = [draw(16, 32, 4, 4).requires_grad_(), draw(32, 16, 4, 4).requires_grad_(), draw(16).requires_grad_()]
    y = functional.conv_transpose2d(*inputs, stride=2, padding=1)
    return [y, *torch.autograd.grad(y.square().sum(), inputs)]


def _function(name: str) -> Callable[[Draw], Any]:
    def values(draw: Draw) -> list[Any]:
        x = draw(5003) * 0.99
        x = x.abs() + 1e-3 if name in ROOTS else x
        return [getattr(torch, name)(x), getattr(torch, name)(x.double())]

    return values


def _numpy_functions(draw: Draw) -> list[Any]:
    x = draw(5003).numpy() * 9
    return [f(one) for one in (x, x.astype(np.float64)) for f in (np.exp, np.tanh, np.sin, lambda v: np.log(abs(v)))]


def _scipy_functions(draw: Draw) -> list[Any]:
    x = draw(40, 40).double().numpy()
    special = scipy.special
    return [special.gammaln(abs(x)), special.erfinv(0.9 * x), special.ndtr(x), special.logsumexp(x, axis=1)]


def _sums(draw: Draw) -> list[Any]:
    x = draw(100, 1003)
    torchs = [x.sum(), x.mean(), x.norm(), x.std(), x.cumsum(1), x.sum(0), x.norm(dim=1), x.var(0), x.double().sum()]
    return [*torchs, x.numpy().sum(), x.numpy().std(0), np.linalg.norm(x.numpy()), np.cov(x.double().numpy())]


def _norms(draw: Draw) -> list[Any]:
    x = draw(64, 16, 8, 8)
    batch = functional.batch_norm(x, None, None, training=True)
    return [batch, functional.group_norm(x, 4), functional.layer_norm(x, (8, 8)), functional.instance_norm(x)]


def _losses(draw: Draw) -> list[Any]:
    x, labels = draw(100, 37) * 5, torch.arange(100) % 37
    activated = [functional.softplus(x), functional.gelu(x), functional.silu(x), functional.leaky_relu(x)]
    return [functional.cross_entropy(x, labels), x.softmax(1), x.log_softmax(1), x.logsumexp(1), *activated,
            torch.cdist(x, x), x.abs() ** 2.7]  # fmt: skip


def _resized(draw: Draw) -> list[Any]:
    x = draw(4, 3, 8, 8)
    return [functional.interpolate(x, scale_factor=2, mode="bilinear"), functional.avg_pool2d(x, 2),
            functional.interpolate(x, size=29, mode="bicubic"),
            functional.interpolate(x, size=29, mode="bilinear", antialias=True)]  # fmt: skip


def _torch_factors(draw: Draw) -> list[Any]:
    x = draw(60, 60)
    square = x @ x.T + 60 * torch.eye(60)
    found = [torch.linalg.cholesky(square), torch.linalg.solve(square, x), *torch.linalg.qr(x), *torch.linalg.svd(x)]
    return [*found, *torch.linalg.eigh(square), *torch.linalg.eigh(square.double())]


def _numpy_factors(draw: Draw) -> list[Any]:
    x = draw(60, 60).double().numpy()
    square = x @ x.T + np.eye(60)
    found = [np.linalg.inv(square), *np.linalg.eigh(square), *np.linalg.svd(x), *np.linalg.qr(x)]
    return [*found, np.real(scipy.linalg.sqrtm(square)), *scipy.linalg.eigh(square)]


def _optimiser(kind: type[torch.optim.Optimizer], fused: bool) -> Callable[[Draw], Any]:
    def steps(draw: Draw) -> list[Any]:
        weight = draw(1000).requires_grad_()
        optimiser = kind([weight], lr=0.01, weight_decay=1e-4, fused=fused)
        for _ in range(5):
            weight.grad = draw(1000)
            optimiser.step()
        return [weight]

    return steps


def _perceptron(draw: Draw) -> list[Any]:
    x, labels = draw(300, 64).numpy(), np.arange(300) % 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = MLPClassifier((50,), max_iter=3, random_state=0).fit(x, labels)
    return [*fitted.coefs_, fitted.predict_proba(x)]


def _neighbours(draw: Draw) -> list[Any]:
    x = draw(200, 64).numpy()
    return [NearestNeighbors(n_neighbors=5).fit(x).kneighbors(x)[0], torch.cdist(draw(200, 64), draw(200, 64))]
