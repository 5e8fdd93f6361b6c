"""Batches: what a DataLoader, a Dataset or arrays give, as inputs and targets, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from fanin.errors import DataError
from fanin.streams import Stream
from fanin.training.randomness import RandomState

BATCH_SIZE = 32  # where data come without one, as in Keras
_PLAIN = (RandomSampler, SequentialSampler)
_TARGETS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """What the network is called with, model(*inputs, **named), and what its outputs are compared to.

    targets: None where the data hold none (an autoencoder's are its inputs).
    """

    inputs: tuple[Any, ...]
    targets: Any
    named: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> Tensor:
        """The first tensor among the inputs."""
        return next(t for t in (*self.inputs, *self.named.values()) if isinstance(t, Tensor))

    @property
    def size(self) -> int:
        """Examples: the first axis."""
        return len(self.first) if self.first.dim() else 1

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return Batch(_to(self.inputs, device), _to(self.targets, device), _to(dict(self.named), device))


@dataclass(frozen=True)
class Batches:
    """A source of batches that can be gone through again: `epoch(seed, k)` is the same whenever it is asked for.

    examples: how many there are, None if the source does not say. batch_size: of full batches, None likewise.
    """

    loader: DataLoader | Sequence[Any]
    examples: int | None
    batch_size: int | None

    @classmethod
    def of(
        cls,
        data: Any,
        *,
        batch_size: int | None = None,
        float_inputs: bool = True,
        dtype: torch.dtype | None = None,
    ) -> Batches:
        """From a DataLoader (taken as it is), a Dataset, (X, y) of tensors or arrays, X alone, or a list of batches.

        batch_size: for data that are not batched yet, 32 if not given; they are shuffled in every epoch. Arrays of
        floats become `dtype`, by default torch's own; integer arrays too, unless `float_inputs` is False (embeddings).
        Tensors stay as they are. Of a loader that Accelerate has prepared, the one beneath is taken.
        DataError for what cannot be gone through, or not twice.
        """
        if batch_size is not None and batch_size < 1:
            raise DataError(f"batch_size: expected at least 1; got {batch_size}")
        if isinstance(data, Batches):
            return data
        if isinstance(data, DataLoader):
            data = getattr(data, "base_dataloader", data)  # Accelerate's own keeps account of who goes through it
            return cls(data, _length(data.dataset), data.batch_size)
        if isinstance(data, list) and data and all(isinstance(b, tuple | list | Mapping) for b in data):
            _refuse_numbers(data)
            first = as_batch(data[0])
            return cls(data, sum(as_batch(b).size for b in data), first.size)
        if isinstance(data, Iterator):
            raise DataError(
                "data: expected what can be gone through again and again (a DataLoader, a Dataset, (X, y)); got "
                f"{type(data).__name__}, which can be used once: pass list(...) of it"
            )
        collate = None
        if not isinstance(data, Dataset):
            data, collate = _arrays(data, dtype or torch.get_default_dtype(), float_inputs=float_inputs), _as_it_is
        if isinstance(data, IterableDataset):
            return cls(DataLoader(data, batch_size=batch_size or BATCH_SIZE), None, batch_size or BATCH_SIZE)
        count = _length(data)
        if not count:
            raise DataError("data: expected at least one example; got none")
        size = min(batch_size or BATCH_SIZE, count)
        loader = DataLoader(data, batch_size=size, shuffle=True, drop_last=count > size, collate_fn=collate)
        return cls(loader, count, size)

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, None if the source does not say."""
        try:
            return len(self.loader)
        except TypeError:
            return None

    def epoch(self, seed: int, epoch: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, in the order that a seed gives; global random states are put back in between."""
        word = int(Stream(seed, "batches", epoch=epoch).words(1)[0] >> np.uint64(1))
        if not isinstance(self.loader, DataLoader):
            order = Stream(seed, "batches", epoch=epoch).permutation(len(self.loader))
            yield from (as_batch(self.loader[i]) for i in order)
            return
        state = RandomState.seeded(word, _generators(self.loader))
        with state.going_on():
            it = iter(self.loader)
        while True:
            with state.going_on():
                item = next(it, None)
            if item is None:
                return
            yield as_batch(item)

    def endless(self, seed: int) -> Iterator[Batch]:
        """Epoch after epoch; DataError if there is not a single batch."""
        epoch = 1
        while True:
            found = False
            for batch in self.epoch(seed, epoch):
                found = True
                yield batch
            if not found:
                raise DataError(
                    "data: expected at least one batch; got none (an empty data set, or drop_last with fewer "
                    "examples than a batch has)"
                )
            epoch += 1

    def with_batch_size(self, batch_size: int) -> Batches:
        """The same examples, in the same kind of order, in batches of another size.

        DataError where the source is batched already, or has a sampler of its own.
        """
        loader = self._plain("change the batch size of")
        count = self.examples or batch_size
        size = min(batch_size, count)
        drop = count > size and (loader.drop_last or self.batch_size == count)
        return self._reloaded(size, shuffle=isinstance(loader.sampler, RandomSampler), drop_last=drop)

    def in_order(self) -> Batches:
        """Every example once in an epoch, none left out, in the data set's order; other sources as they are."""
        if not isinstance(self.loader, DataLoader) or isinstance(self.loader.dataset, IterableDataset):
            return self
        if self.loader.batch_sampler is not None and type(self.loader.batch_sampler) is not BatchSampler:
            return self
        return self._reloaded(self.batch_size or BATCH_SIZE, shuffle=False, drop_last=False)

    def _plain(self, purpose: str) -> DataLoader:
        loader = self.loader
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise DataError(f"data: expected a DataLoader, a Dataset or (X, y) to {purpose}")
        kinds = ((loader.sampler, _PLAIN), (loader.batch_sampler, (BatchSampler,)))
        own = [type(part).__name__ for part, plain in kinds if type(part) not in plain]
        if own:
            raise DataError(
                f"data: expected a DataLoader without a sampler of its own to {purpose}; got one with {own[0]}"
            )
        return loader

    def _reloaded(self, size: int, *, shuffle: bool, drop_last: bool) -> Batches:
        loader = self.loader
        assert isinstance(loader, DataLoader)
        return Batches(
            DataLoader(
                loader.dataset,
                size,
                shuffle=shuffle,
                drop_last=drop_last,
                collate_fn=loader.collate_fn,
                generator=loader.generator,
            ),
            self.examples,
            size,
        )


def as_batch(item: Any) -> Batch:
    """A batch as a loader yields it: (inputs..., targets), a mapping with labels, or inputs alone."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        key = next((name for name in _TARGETS if name in item), None)
        found = Batch((), item[key] if key else None, {k: v for k, v in item.items() if k != key})
    elif isinstance(item, list | tuple):
        parts = tuple(item)
        found = Batch(parts[:-1], parts[-1]) if len(parts) > 1 else Batch(parts, None)
    else:
        found = Batch((item,), None)
    if not any(isinstance(t, Tensor) for t in (*found.inputs, *found.named.values())):
        kinds = ", ".join(type(x).__name__ for x in (*found.inputs, *found.named.values())) or "nothing"
        raise DataError(
            "data: expected batches whose inputs are tensors, as (inputs, targets) or a mapping with labels; got "
            f"{kinds}"
        )
    return found


class Rows(TensorDataset):
    """Rows of tensors that a loader takes a batch at a time: one by one takes longer than a small network's step."""

    def __getitems__(self, index: list[int]) -> list[Tensor]:
        """The rows of a batch."""
        chosen = torch.tensor(index)
        return [tensor[chosen] for tensor in self.tensors]


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


def _refuse_numbers(data: list[Any]) -> None:
    """DataError for lists of lists of numbers, which may be rows or (X, y), and are no batches of tensors."""
    first = data[0]
    if isinstance(first, list | tuple) and all(isinstance(leaf, Number) for leaf in _leaves(first)):
        raise DataError(
            "data: expected a list of batches of tensors; got a list of lists of numbers, which may be rows or inputs "
            "and targets: pass np.array(rows), or the tuple (np.array(X), np.array(y))"
        )


def _leaves(value: Any) -> Iterator[Any]:
    """What lists and tuples hold, at any depth."""
    for part in value:
        yield from _leaves(part) if isinstance(part, list | tuple) else (part,)


def _arrays(data: Any, dtype: torch.dtype, *, float_inputs: bool) -> Dataset:
    if isinstance(data, list | tuple) and not data:
        raise DataError(f"data: expected at least one example, as (X, y) or X; got an empty {type(data).__name__}")
    parts = list(data) if isinstance(data, list | tuple) else [data]
    if not 1 <= len(parts) <= 2:
        raise DataError(
            f"data: expected (X, y), a DataLoader or a Dataset; got a {type(data).__name__} of {len(parts)}"
        )
    if len(parts) == 2 and parts[0] is not None and parts[1] is None:
        raise DataError(
            "data: expected (X, y); got (X, None): pass X alone where inputs are their own targets (an autoencoder), "
            "or [(X, None)], one batch, where the loss wants none"
        )
    try:
        tensors = [_tensor(part, dtype, floating=float_inputs and i == 0) for i, part in enumerate(parts)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"data: expected arrays or tensors of numbers, (X, y); got {_kinds(parts)} ({error})") from None
    if len({len(t) if t.dim() else -1 for t in tensors}) > 1 or not tensors[0].dim():
        shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
        raise DataError(f"data: expected as many targets as examples; got the shapes {shapes}")
    return Rows(*tensors)


def _tensor(part: Any, dtype: torch.dtype, *, floating: bool) -> Tensor:
    """Tensors as they are; arrays and frames with floats in that dtype."""
    if isinstance(part, Tensor):
        return part.detach()
    array = np.asarray(part)
    if not array.ndim:
        raise TypeError(f"{type(part).__name__} is a single value")
    array = np.ascontiguousarray(array)
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())  # torch warns of what is read-only
    if floating or tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor if tensor.dtype == torch.bool else tensor.long()


def _kinds(parts: Sequence[Any]) -> str:
    return ", ".join(type(p).__name__ for p in parts)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None


def _to(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: _to(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_to(v, device) for v in value)
    return value


def _generators(loader: DataLoader) -> list[torch.Generator]:
    """Generators that the loader draws from instead of torch's global one."""
    found = (getattr(owner, "generator", None) for owner in (loader, loader.sampler, loader.batch_sampler))
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
