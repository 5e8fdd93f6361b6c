"""Small data sets of all sorts, split into training and test halves; every one says what a good model reaches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class Split:
    """Training and test data. `reference`: the score of a good model on the test half."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    reference: float

    def inputs(self, x: Tensor, x_test: Tensor) -> Split:
        """The same targets for other inputs."""
        return replace(self, x=x, x_test=x_test)

    def targets(self, y: Tensor, y_test: Tensor) -> Split:
        """The same inputs with other targets."""
        return replace(self, y=y, y_test=y_test)

    def first(self, n: int) -> Split:
        """Only the first n training examples."""
        return replace(self, x=self.x[:n], y=self.y[:n])

    @property
    def test(self) -> TensorDataset:
        """The test half, as evaluation data."""
        return TensorDataset(self.x_test, self.y_test)


def batches(split: Split, size: int, *, drop_last: bool = False) -> DataLoader:
    """Shuffled batches of the training half."""
    return DataLoader(TensorDataset(split.x, split.y), batch_size=size, shuffle=True, drop_last=drop_last)


def _split(x: np.ndarray, y: np.ndarray, reference: float, *, test: float = 0.3, seed: int = 0) -> Split:
    """A fixed shuffle, then the last part for the test."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    kind = torch.float32 if y.dtype.kind == "f" else torch.int64
    inputs = torch.tensor(x, dtype=torch.int64 if x.dtype.kind in "iu" else torch.float32)
    targets = torch.tensor(y, dtype=kind)
    cut = round(len(x) * (1 - test))
    return Split(inputs[:cut], targets[:cut], inputs[cut:], targets[cut:], reference)


def standardised(split: Split) -> Split:
    """Inputs less the mean of the training half, by its standard deviation, column by column."""
    mean, deviation = split.x.mean(0), split.x.std(0).clamp_min(1e-6)
    return split.inputs((split.x - mean) / deviation, (split.x_test - mean) / deviation)


def standard_targets(split: Split) -> Split:
    """Targets in the training half's standard deviations from its mean."""
    mean, deviation = split.y.mean(0), split.y.std(0)
    return split.targets((split.y - mean) / deviation, (split.y_test - mean) / deviation)


def column(split: Split) -> Split:
    """Targets as floats of shape (N, 1)."""
    return split.targets(split.y.float().unsqueeze(1), split.y_test.float().unsqueeze(1))


def pictures(split: Split) -> Split:
    """Digits as (N, 1, 8, 8)."""
    return split.inputs(split.x.view(-1, 1, 8, 8), split.x_test.view(-1, 1, 8, 8))


@cache
def digits() -> Split:
    """8 x 8 digits in [0, 1], ten classes; logistic regression names 95 % rightly."""
    found = datasets.load_digits()
    return _split(found.data / 16, found.target, 0.95)


def bytes_of_digits() -> Split:
    """The same with pixels 0..255."""
    d = digits()
    return d.inputs(d.x * 255, d.x_test * 255)


@cache
def iris() -> Split:
    """Raw measurements in centimetres of three kinds of flowers; logistic regression 96 %."""
    found = datasets.load_iris()
    return _split(found.data, found.target, 0.96)


@cache
def wine() -> Split:
    """Thirteen raw features of very different scales, three classes; logistic regression after scaling 98 %."""
    found = datasets.load_wine()
    return _split(found.data, found.target, 0.98)


@cache
def cancer() -> Split:
    """Thirty raw features, two classes (37 % : 63 %); logistic regression after scaling 97 %."""
    found = datasets.load_breast_cancer()
    return _split(found.data, found.target, 0.97)


@cache
def diabetes() -> Split:
    """Ten features (standard deviation .05), targets 25..346; ridge regression explains 40 % of the variance."""
    found = datasets.load_diabetes()
    return _split(found.data, found.target.astype(float), 0.40)


@cache
def friedman() -> Split:
    """Friedman's first function of ten uniform inputs, noise 1, targets about 14 +- 5; the noise leaves .96."""
    x, y = datasets.make_friedman1(n_samples=1000, noise=1.0, random_state=0)
    return _split(x, y, 0.93)


@cache
def moons() -> Split:
    """Two interleaving half circles with noise .15; Bayes about 99 %."""
    x, y = datasets.make_moons(800, noise=0.15, random_state=0)
    return _split(x, y, 0.98)


@cache
def circles() -> Split:
    """A circle in a ring."""
    x, y = datasets.make_circles(800, noise=0.08, factor=0.5, random_state=0)
    return _split(x, y, 0.99)


@cache
def spirals() -> Split:
    """Three arms of a spiral, one turn."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 3
    radius = rng.uniform(0.1, 1, 1200)
    angle = 5 * radius + y * 2 * np.pi / 3 + rng.normal(0, 0.1, 1200)
    return _split(2 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), y, 0.97)


@cache
def sine() -> Split:
    """sin(2x) on [-3, 3] with noise .1, as (N, 1)."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (600, 1))
    return _split(x, np.sin(2 * x) + rng.normal(0, 0.1, (600, 1)), 0.98)


@cache
def blobs() -> Split:
    """Four Gaussian clouds in five dimensions."""
    x, y = datasets.make_blobs(600, 5, centers=4, cluster_std=2.0, random_state=1)
    return standardised(_split(x, y, 0.99))


@cache
def rare() -> Split:
    """Two classes, 6 % : 94 %, twelve features."""
    x, y = datasets.make_classification(
        1500, 12, n_informative=6, weights=[0.94], class_sep=2.0, flip_y=0.0, random_state=0
    )
    return _split(x, y, 0.92)


@cache
def flipped() -> Split:
    """Two clouds; one training and test label in five is wrong, so that nothing names more than 80 %."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 900)
    x = rng.normal(size=(900, 8)) + 1.5 * (2 * y[:, None] - 1)
    return _split(x, np.where(rng.random(900) < 0.2, 1 - y, y), 0.80)


@cache
def labelled() -> Split:
    """Six labels that may hold together, each the sign of its own direction in 20 inputs, about half of them on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 20))
    return _split(x, (x @ rng.normal(size=(20, 6)) > 0).astype(float), 0.96)


@cache
def words_bagged() -> Split:
    """Texts as counts of 300 words, 97 % zeros: two topics that prefer different words."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 900)
    liking = rng.normal(size=(2, 300))
    rate = np.exp(0.9 * liking) / np.exp(0.9 * liking).sum(1, keepdims=True)
    return _split(np.stack([rng.multinomial(9, rate[k]) for k in y]).astype(float), y, 0.93)


@cache
def levels() -> Split:
    """Four categories of five levels as one-hot inputs; y = whether the sum of their ranks is above 8."""
    rng = np.random.default_rng(0)
    levels_ = rng.integers(0, 5, (900, 4))
    return _split(np.eye(5)[levels_].reshape(900, 20), (levels_.sum(1) > 8).astype(int), 0.98)


@cache
def reviews() -> Split:
    """Twelve tokens of 40; y = whether tokens under 10 outnumber those from 10 to 19."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 40, (1600, 12))
    return _split(tokens, ((tokens < 10).sum(1) > ((tokens >= 10) & (tokens < 20)).sum(1)).astype(int), 0.95)


@cache
def sums() -> Split:
    """Ten normal numbers (N, 10, 1); y = their sum by sqrt(10), as (N, 1)."""
    x = np.random.default_rng(0).normal(size=(1200, 10, 1))
    return _split(x, x.sum(1) / np.sqrt(10), 0.97)


@cache
def waves() -> Split:
    """Noisy waves of 20 steps (N, 20, 1) in three rhythms, at random phases."""
    rng = np.random.default_rng(0)
    y = np.arange(900) % 3
    phase = rng.uniform(0, 2 * np.pi, (900, 1))
    rhythm = np.array([0.3, 0.6, 1.2])[y][:, None]
    return _split((np.sin(rhythm * np.arange(20) + phase) + rng.normal(0, 0.2, (900, 20)))[..., None], y, 0.97)


@cache
def chain() -> Split:
    """Ten tokens of ten (N, 10); y = each token's successor under a fixed permutation, wrong one time in ten."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 10, (600, 10))
    right = rng.permutation(10)[tokens]
    return _split(tokens, np.where(rng.random(tokens.shape) < 0.1, rng.integers(0, 10, tokens.shape), right), 0.91)


@cache
def tags() -> Split:
    """Eight tokens of twelve (N, 8); each one's tag is whether it is greater than the one before."""
    tokens = np.random.default_rng(0).integers(0, 12, (1000, 8))
    before = np.concatenate([tokens[:, :1], tokens[:, :-1]], 1)
    return _split(tokens, (tokens > before).astype(int), 0.97)


@cache
def stripes() -> Split:
    """Three-coloured 12 x 12 pictures of stripes: level, upright, rising or falling, with noise; about standard."""
    rng = np.random.default_rng(0)
    y = np.arange(800) % 4
    row, across = np.mgrid[:12, :12]
    course = np.stack([row, across, (row + across) / 1.4, (row - across) / 1.4])[y]
    wave = np.sin(1.3 * course + rng.uniform(0, 2 * np.pi, (800, 1, 1)))
    colour = rng.uniform(0.3, 1, (800, 3, 1, 1))
    return _split(colour * wave[:, None] * 1.4 + rng.normal(0, 0.6, (800, 3, 12, 12)), y, 0.97)


@cache
def discs() -> Split:
    """Pictures (N, 1, 12, 12) of a bright disc on noise; y = the disc, as a mask of 0 and 1."""
    rng = np.random.default_rng(0)
    row, across = np.mgrid[:12, :12]
    centre = rng.uniform(3, 9, (500, 2, 1, 1))
    mask = ((row - centre[:, 0]) ** 2 + (across - centre[:, 1]) ** 2 < rng.uniform(6, 14, (500, 1, 1)))[:, None]
    return _split(mask * 1.5 + rng.normal(0, 0.7, mask.shape), mask.astype(float), 0.95)


@cache
def pairs() -> Split:
    """Two digits at a time (N, 2, 64); y = whether they are of one class, half of the time."""
    d = digits()
    halves = [_pairs_of(d.x, d.y, 2000, seed=0), _pairs_of(d.x_test, d.y_test, 600, seed=1)]
    return Split(*halves[0], *halves[1], 0.93)


def _pairs_of(x: Tensor, y: Tensor, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """n pairs, the even ones of one class."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(x), n)
    second = rng.integers(0, len(x), n)
    for i in range(0, n, 2):
        second[i] = rng.choice(np.flatnonzero(y.numpy() == int(y[first[i]])))
    return torch.stack([x[first], x[second]], 1), (y[first] == y[second]).float()


@cache
def ratings() -> Split:
    """A user's number and an item's (N, 2); y = their hidden factors' inner product, standard, noise .2."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    who = np.stack([rng.integers(0, 60, 2400), rng.integers(0, 50, 2400)], 1)
    return _split(who, (users[who[:, 0]] * items[who[:, 1]]).sum(1) / 1.4 + rng.normal(0, 0.2, 2400), 0.90)


def own_targets(split: Split, reference: float) -> Split:
    """For autoencoders: the inputs are the targets."""
    return Split(split.x, split.x, split.x_test, split.x_test, reference)
