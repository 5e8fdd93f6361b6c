"""The forward and the backward pass of a stack, explicit, on buffers allocated once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fanin.activations import Activation, resolve
from fanin.engine.buffers import buffer, whole
from fanin.engine.losses import LOSSES
from fanin.engine.network import Affine, Gradients, Layer, Norm
from fanin.engine.products import Products
from fanin.recipe import Recipe

BATCHNORM_EPS = 1e-5
BATCHNORM_MOMENTUM = 0.1


class Normalizer:
    """Batch normalisation of one layer over the batch axis: y = x_hat * scale + shift, x_hat = (z - mean) / std."""

    def __init__(self, members: int, batch: int, width: int, *, like: Tensor) -> None:
        self.centred = buffer(like, members, batch, width)  # z - mean, then x_hat
        self.inverse_std = like.new_empty(members, 1, width)
        self._product = buffer(like, members, batch, width)
        self._mean, self._variance, self._factor = (torch.empty_like(self.inverse_std) for _ in range(3))
        # tensors, not numbers: a number is wrapped and converted anew at every call
        self._eps = like.new_tensor(BATCHNORM_EPS)
        self._unbias = like.new_tensor(batch / max(batch - 1, 1))
        self._share = like.new_tensor(1 / batch)

    def forward(self, z: Tensor, norm: Norm, *, update: bool, alive: Tensor | None) -> None:
        """Replace z (M, B, H) by its normalised, scaled and shifted values; `update` moves the running statistics.

        alive (M, 1, 1): members whose running statistics move; None is all.
        """
        mean, variance = self._mean, self._variance
        torch.mean(z, 1, keepdim=True, out=mean)
        torch.sub(z, mean, out=self.centred)
        torch.mean(torch.mul(self.centred, self.centred, out=z), 1, keepdim=True, out=variance)
        if update:
            _move(norm.running_mean, mean, alive)
            _move(norm.running_var, torch.mul(variance, self._unbias, out=self._factor), alive)
        torch.rsqrt(variance.add_(self._eps), out=self.inverse_std)
        self.centred.mul_(self.inverse_std)
        torch.mul(self.centred, norm.scale, out=z).add_(norm.shift)

    def backward(self, grad: Tensor, norm: Norm, gradient: Affine) -> None:
        """Turn d loss / d y into d loss / d z in place; fill the gradients of scale and shift.

        dz = scale / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)), means over the batch.
        """
        torch.sum(grad, 1, keepdim=True, out=gradient.shift)
        torch.sum(torch.mul(grad, self.centred, out=self._product), 1, keepdim=True, out=gradient.scale)
        torch.mul(self.centred, gradient.scale, out=self._product).add_(gradient.shift).mul_(self._share)
        grad.sub_(self._product).mul_(torch.mul(self.inverse_std, norm.scale, out=self._factor))


def _move(running: Tensor, now: Tensor, alive: Tensor | None) -> None:
    if alive is None:
        running.lerp_(now, BATCHNORM_MOMENTUM)
    else:
        running.copy_(torch.where(alive, running.lerp(now, BATCHNORM_MOMENTUM), running))


class Passes:
    """Buffers for batches of B examples through a stack of M networks; `inputs` (M, B, D) and `labels` (M, B) go in.

    After `forward`, `losses` (M,) holds each member's mean loss over its batch, `pre[l]` the pre-activations of layer l
    (of a hidden layer only if its derivative needs them: else its output has taken their place), `post[l]` each hidden
    layer's output and `outputs[l]` the same after dropout; after `backward`, `deltas[l]` is d loss / d z of layer l.
    """

    def __init__(self, layers: Sequence[Layer], recipe: Recipe, batch: int, products: Sequence[Products]) -> None:
        self.activation: Activation = resolve(recipe.activation)
        members = layers[0].weight.shape[0]
        like = layers[0].weight
        sizes = [layers[0].weight.shape[2], *(layer.weight.shape[1] for layer in layers)]
        hidden = sizes[1:-1]

        def buffers(widths: Sequence[int]) -> list[Tensor]:
            return [buffer(like, members, batch, width) for width in widths]

        in_place = self.activation.saved == "output"
        self.inputs = buffer(like, members, batch, sizes[0])
        # what the loss works on lies class by class; among the activations it is seen batch by batch, as they are
        self._loss = LOSSES[recipe.loss](members, sizes[-1], batch, like=like)
        self.labels, self.losses = self._loss.labels, self._loss.losses
        self.pre = [*buffers(hidden), self._loss.scores.transpose(1, 2)]
        self.post = self.pre[:-1] if in_place else buffers(hidden)
        self.masks = buffers(hidden) if recipe.dropout > 0 else []
        self.outputs = buffers(hidden) if recipe.dropout > 0 else self.post
        self.deltas = [*buffers(hidden), self._loss.deltas.transpose(1, 2)]
        # activations work on whole buffers, padding and all (see engine.buffers)
        self._flat_pre = [whole(z) for z in self.pre[:-1]]
        self._flat_post = self._flat_pre if in_place else [whole(h) for h in self.post]
        self._flat_deltas = [whole(delta) for delta in self.deltas[:-1]]
        self._flat_saved = self._flat_post if in_place else self._flat_pre
        normalized = recipe.normalization == "batch"
        self._norms = [Normalizer(members, batch, h, like=like) for h in hidden] if normalized else []
        self._products = products

    def forward(self, layers: Sequence[Layer], *, dropout: bool, update: bool, alive: Tensor | None = None) -> None:
        """Loss of the batch in training mode; `update` moves batch normalisation's running statistics.

        alive (M,): members whose running statistics move; None is all.
        """
        below, last = self.inputs, len(layers) - 1
        moving = None if alive is None else alive.view(-1, 1, 1)
        for i, layer in enumerate(layers):
            z = self.pre[i]
            self._products[i].forward(below, layer.weight, layer.bias, z)
            if i == last:
                break
            if layer.norm is not None:
                self._norms[i].forward(z, layer.norm, update=update, alive=moving)
            self.activation.apply(self._flat_pre[i], self._flat_post[i])
            below = self.post[i]
            if dropout:
                below = torch.mul(below, self.masks[i], out=self.outputs[i])
        self._loss.compute()

    def backward(self, layers: Sequence[Layer], gradients: Sequence[Gradients], *, dropout: bool) -> None:
        """Gradients of each member's own mean loss, from the last layer to the first."""
        for i in reversed(range(len(layers))):
            gradient = gradients[i]
            self._products[i].by_weight(self.deltas[i], gradient.weight)
            # Normalisation subtracts the mean, so a bias before it has gradient 0, exactly: it is left at 0, where
            # summing would leave rounding noise that adaptive optimisers blow up to full-sized steps.
            if gradient.norm is None:
                torch.sum(self.deltas[i], 1, keepdim=True, out=gradient.bias)
            if i == 0:
                break
            grad = self.deltas[i - 1]
            self._products[i].by_input(grad)
            if dropout:
                grad.mul_(self.masks[i - 1])
            self.activation.backward(self._flat_deltas[i - 1], self._flat_saved[i - 1])
            norm, norm_gradient = layers[i - 1].norm, gradients[i - 1].norm
            if norm is not None and norm_gradient is not None:
                self._norms[i - 1].backward(grad, norm, norm_gradient)


def first_bad_layer(passes: Passes, m: int) -> int | None:
    """The first layer, from 1, with a value that is not finite; None if only the loss itself overflowed."""
    return next((i + 1 for i, z in enumerate(passes.pre) if not bool(z[m].isfinite().all())), None)
