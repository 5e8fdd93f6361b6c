"""StackedAutoencoder as an estimator and as modules: scikit-learn's manners, unrolling, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from fanin.catalogue import ACTIVATIONS
from fanin.initializers import Keyed, xavier_uniform
from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.streams import Stream

pytestmark = pytest.mark.usefixtures("one_thread")


def data(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(4).uniform(size=(30, 8)).astype(dtype)


def model(**params: Any) -> StackedAutoencoder:
    return StackedAutoencoder(**{"hidden": (6, 4), "batch_size": 10, "epochs": 2} | params)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_modules_compute_what_the_model_does(name: str, tied: bool) -> None:
    output = "sigmoid" if tied else "linear"
    fitted = model(activation=name, tied=tied, output=output, lr=0.01).fit(data())
    x = torch.from_numpy(data())
    codes = fitted.transform(x)
    with torch.no_grad():
        torch.testing.assert_close(fitted.to_sequential(dropout=0.5).eval()(x), codes, rtol=0, atol=1e-6)
        torch.testing.assert_close(fitted.decoder()(codes), fitted.inverse_transform(codes), rtol=0, atol=1e-6)
        torch.testing.assert_close(fitted.unrolled()(x), fitted.inverse_transform(codes), rtol=0, atol=1e-6)
        assert not torch.allclose(fitted.to_sequential()(x + 0.1), codes, atol=1e-6)


def test_to_sequential_is_a_classifier_to_train() -> None:
    fitted = model(seed=3).fit(data())
    mlp = fitted.to_sequential(classes=5, dropout=0.25)
    kinds = [type(m) for m in mlp]
    assert kinds == [nn.Linear, nn.Sigmoid, nn.Dropout, nn.Linear, nn.Sigmoid, nn.Dropout, nn.Linear]
    noise = Keyed(Stream(3, "weight", layer=2))
    assert torch.equal(mlp[-1].weight, xavier_uniform(noise, (5, 4), fan_in=4, fan_out=5).float())
    assert not bool(mlp[-1].bias.any())
    before = fitted.coefs_[0]
    with torch.no_grad():
        mlp[0].weight.zero_()
    assert np.array_equal(fitted.coefs_[0], before), "the module has weights of its own"
    assert mlp(torch.from_numpy(data())).shape == (30, 5)
    assert all(p.requires_grad for p in mlp.parameters())


def test_attributes_are_the_weights_of_the_definition() -> None:
    fitted = model(tied=False).fit(data())
    codes = data().astype(np.float64)
    for W, b in zip(fitted.coefs_, fitted.intercepts_, strict=True):
        codes = expit(codes @ W + b)
    np.testing.assert_allclose(fitted.transform(data()), codes, atol=1e-6)
    for D, c in zip(fitted.decoder_coefs_[::-1], fitted.decoder_intercepts_[::-1], strict=True):
        codes = expit(codes @ D + c)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(data())), codes, atol=1e-6)
    loss = -(xlogy(data(), codes) + xlogy(1 - data(), 1 - codes)).sum(1).mean()
    assert fitted.score(data()) == pytest.approx(-loss, rel=1e-5)
    assert fitted.score(data()) != pytest.approx(-loss / 8, rel=1e-2)
    assert fitted.n_features_in_ == 8


def test_the_start_is_the_catalogues_scheme_from_the_seeds_stream() -> None:
    fitted = model(epochs=0, seed=9, tied=False, init={"name": "xavier_uniform", "gain": 4.0}).fit(data())
    for i, (fan_in, fan_out) in enumerate([(8, 6), (6, 4)]):
        noise = Keyed(Stream(9, "weight", layer=i))
        drawn = xavier_uniform(noise, (fan_out, fan_in), fan_in=fan_in, fan_out=fan_out, gain=4.0)
        assert np.array_equal(fitted.coefs_[i], drawn.T.float().numpy())
        assert not np.array_equal(fitted.decoder_coefs_[i], drawn.float().numpy())
    assert model(epochs=0).fit(data()).decoder_coefs_[0] == pytest.approx(model(epochs=0).fit(data()).coefs_[0].T)


def test_arrays_in_arrays_out_tensors_in_tensors_out() -> None:
    fitted = model(dtype=torch.float64).fit(data())
    assert isinstance(fitted.transform(data()), np.ndarray)
    assert fitted.transform(data()).dtype == np.float64
    given = torch.from_numpy(data())
    assert isinstance(fitted.transform(given), torch.Tensor)
    assert np.array_equal(fitted.transform(given).numpy(), fitted.transform(data()))
    other = model(dtype=torch.float64).fit(given)
    assert np.array_equal(other.coefs_[0], fitted.coefs_[0])
    assert model().fit(data()).transform(data()).dtype == np.float32
    frozen = data()
    frozen.setflags(write=False)
    assert np.array_equal(fitted.transform(frozen), fitted.transform(data()))
    codes = model()
    assert np.array_equal(codes.fit_transform(data()), codes.transform(data()))


def test_single_and_double_precision_agree() -> None:
    single, double = model().fit(data()), model(dtype=torch.float64).fit(data())
    np.testing.assert_allclose(single.transform(data()), double.transform(data()), atol=1e-5)
    assert not np.array_equal(single.transform(data()), double.transform(data()))


def test_parameters_are_scikit_learns_way() -> None:
    hidden = (6, 4)
    made = model(hidden=hidden, corruption="masking")
    assert made.get_params()["hidden"] is hidden
    assert clone(made).get_params() == made.get_params()
    assert made.set_params(lr=0.5) is made
    assert made.lr == 0.5
    assert repr(made) == "StackedAutoencoder(hidden=(6, 4), corruption='masking', lr=0.5, batch_size=10, epochs=2)"
    with pytest.raises(ValueError, match="no parameter 'momemtum'; did you mean 'momentum'"):
        made.set_params(lr=0.1, momemtum=0.9)
    assert made.lr == 0.5, "nothing is set where a name is wrong"


def test_in_a_pipeline() -> None:
    rows = data() * 7 - 3
    scaler = MinMaxScaler(clip=True)
    piped = make_pipeline(scaler, model())
    codes = piped.fit_transform(rows)
    assert np.array_equal(codes, model().fit(scaler.fit_transform(rows)).transform(scaler.transform(rows)))
    assert piped.score(rows) == pytest.approx(piped[-1].score(scaler.transform(rows)))
    assert "StackedAutoencoder" in repr(piped)


def test_data_that_is_refused() -> None:
    broken = data()
    broken[3, 5] = np.nan
    with pytest.raises(ValueError, match="got nan in row 3, column 5"):
        model().fit(broken)
    with pytest.raises(
        ValueError, match=r"expected values in \[0, 1\] for cross-entropy; got .* to 7\.\d.*output=\"linear\""
    ):
        model().fit(data() * 8)
    model(output="linear", lr=1e-4).fit(data() * 8)
    with pytest.raises(ValueError, match="at least batch_size = 10 rows; got 9"):
        model().fit(data()[:9])
    with pytest.raises(ValueError, match=r"got shape \(8,\)"):
        model().fit(data()[0])
    with pytest.raises(ValueError, match=r"got shape \(0, 8\)"):
        model().fit(data()[:0])
    with pytest.raises(TypeError, match="array of real numbers; got dtype <U1"):
        model().fit(np.array([["a"] * 8] * 30))  # type: ignore[arg-type]
    fitted = model().fit(data())
    with pytest.raises(ValueError, match="expected 8 features, as fitted; got 7"):
        fitted.transform(data()[:, :7])
    with pytest.raises(ValueError, match="expected 4 features, as fitted; got 8"):
        fitted.inverse_transform(data())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden": ()}, "hidden: expected widths"),
        ({"hidden": (5, 0)}, "hidden: expected widths"),
        ({"corruption": "noise"}, "corruption: expected one of none, masking"),
        ({"corruption": "masking", "amount": (0.1, 1.5)}, r"amount: .* got 1.5"),
        ({"amount": (0.1, 0.2, 0.3)}, "amount: expected one value, or one for each of 2 layers"),
        ({"activation": "sigmod"}, "sigmoid"),
        ({"output": "relu"}, "output: expected sigmoid or linear"),
        ({"lr": 0.0}, "lr: expected positive"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\)"),
        ({"batch_size": 0}, "batch_size: expected a count"),
        ({"epochs": -1}, "epochs: expected counts"),
        ({"init": "xaver_uniform"}, "xavier_uniform"),
    ],
)
def test_parameters_that_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**params).fit(data())


def test_a_dtype_that_is_refused() -> None:
    with pytest.raises(TypeError, match=r"float32 or torch\.float64"):
        model(dtype=torch.float16).fit(data())


def test_before_a_fit() -> None:
    for ask in (
        lambda m: m.transform(data()),
        lambda m: m.coefs_,
        lambda m: m.to_sequential(),
        lambda m: m.state_dict(),
    ):
        with pytest.raises(ValueError, match="not fitted yet"):
            ask(model())
    assert not hasattr(model(), "coefs_")
    assert hasattr(model().fit(data()), "coefs_")


def test_a_state_of_another_model_is_refused() -> None:
    state = model().fit(data()).state_dict()
    for other in ({"hidden": (6, 5)}, {"tied": False}, {"hidden": (6,)}):
        with pytest.raises(ValueError, match="give the model the parameters of the one that was saved"):
            model(**other).load_state_dict(state)


@pytest.mark.parametrize(("call", "message"), [({"classes": 0}, "classes"), ({"dropout": 1.0}, "dropout")])
def test_heads_and_dropout_that_are_refused(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().fit(data()).to_sequential(**call)
