"""Bad inputs, one a line: what is said of each (expected, given, where, what to do), and exit code 2 of commands."""

from __future__ import annotations

import contextlib
import io
import os

import pytest

import fanin
from fanin.cli import main
from fanin.errors import DataError, FaninError, RecipeError, StoreError
from tests.security import bad_files

DIGITS = ("--data", "digits")

# arguments of the command, and fragments of what it says
COMMANDS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    # names and flags
    (("rum",), ('"rum"', "run", "Try `fanin --help`")),
    (("run",), ("expected at least one study", "fanin list studies")),
    (("run", ""), ("unknown study ''", "expected a TOML file")),
    (("run", "."), ("unknown study '.'",)),
    (("run", "lab9/nm"), ("unknown study 'lab9/nm'", "did you mean 'lab9/nn'")),
    (("run", "../lab9/nn"), ("unknown study '../lab9/nn'",)),
    (("run", "good.toml", "--sedes", "3"), ("--sedes", "Try `fanin run --help`")),
    (("run", "good.toml", "--seeds", "0"), ("--seeds: expected at least 1; got 0",)),
    (("run", "good.toml", "--seeds", "9" * 30), ("expected at most 1,000,000 trials", "9" * 30)),
    (("run", "good.toml", "--seeds", "many"), ("--seeds", "many")),
    (("run", "good.toml", *DIGITS, "--jobs", "-1"), ("jobs: expected 0", "-1")),
    (("run", "good.toml", *DIGITS, "--device", "tpu"), ("device: expected auto, cpu or cuda", "'tpu'")),
    (("run", "good.toml", *DIGITS, "--keep-weights", "some"), ("--keep-weights", '"some"', '"first"')),
    (("run", "good.toml", *DIGITS, "--out", "good.csv"), ("good.csv: is a file", "expected a folder")),
    (("run", "good.toml", "good.toml", "--set", "lr"), ("expected key=value, such as lr=0.01", "'lr'")),
    (("run", "good.toml", "--set", "=1"), ("expected key=value", "'=1'")),
    (("run", "good.toml", "--set", "lr=nan"), ("optimizer.lr: expected a finite number; got nan",)),
    (("run", "good.toml", "--set", "lr=-1"), ("optimizer.lr: expected greater than 0; got -1",)),
    (("run", "good.toml", "--set", "lrr=1"), ("lrr: unknown key", "did you mean 'lr'")),
    (("run", "good.toml", "--set", "lr=0.1,0.2"), ("use --vary lr=0.1,0.2",)),
    (("run", "good.toml", "--set", "dropout.p=0.1"), ("dropout.p: dropout has no options", "set dropout itself")),
    (("run", "good.toml", "--vary", "lr=0.1,0.1"), ("the name 'lr=0.1' is used more than once",)),
    (("run", "good.toml", *DIGITS, "--set", "batch_size=5000"), ("batch_size: expected at most 1437", "got 5000")),
    (("run", "good.toml", *DIGITS, "--set", "outputs=3"), ("outputs: expected at least 10", "got 3")),
    (("list", "nothing"), ('"nothing"', "Choose from", '"studies"')),
    # study files
    (("run", "missing.toml"), ("missing.toml: cannot be read", "No such file", "expected a study in TOML")),
    (("run", "bare.toml"), ("bare.toml: cannot be read", "Is a directory")),
    (("run", "pipe.toml"), ("pipe.toml: cannot be read", "a pipe or a device")),
    (("run", "syntax.toml"), ("syntax.toml: not valid TOML", "line 1")),
    (("run", "twice.toml"), ("twice.toml: not valid TOML", "Cannot overwrite a value", "line 2")),
    (("run", "latin.toml"), ("latin.toml: not valid TOML", "utf-8")),
    (("run", "utf16.toml"), ("utf16.toml: not valid TOML", "utf-8")),
    (("run", "digits.toml"), ("digits.toml: not valid TOML", "5000 digits")),
    (("run", "large.toml"), ("large.toml: seeds: expected an integer of 64 bits", "16000 bits")),
    (("run", "deep.toml"), ("deep.toml: expected at most 32 levels",)),
    (("run", "levels.toml"), ("levels.toml: recipe.a.a", "expected at most 32 levels")),
    (("run", "dots.toml"), ("dots.toml: expected keys of at most 32 parts",)),
    (("run", "escape.toml"), ("'title': expected text without control characters", r"'\x1b' at position 0")),
    (("run", "key.toml"), ("its key': expected text without control characters", r"'\x00'")),
    (("run", "negative.toml"), ("negative.toml: seeds: expected greater than or equal to 1; got -1",)),
    (("run", "type.toml"), ("type.toml: seeds: expected a valid integer; got 'six'",)),
    (("run", "nan.toml"), ("nan.toml: success_accuracy: expected", "got nan")),
    (("run", "date.toml"), ("date.toml: seeds: expected a valid integer", "1979")),
    (("run", "unknown.toml"), ("unknown.toml: sedes: unknown key", "did you mean 'seeds'")),
    (("run", "recipe.toml"), ("recipe.toml: recipe: expected a table of recipe keys; got 3",)),
    (("run", "arms.toml"), ("arms.toml: arms: expected a list of tables, [[arms]]; got []",)),
    (("run", "arm.toml"), ("arm.toml: arms.0.name: required, and not given",)),
    (("run", "same.toml"), ("same.toml: arms: the name 'a' is used more than once",)),
    (("run", "init.toml"), ("init.toml: recipe.init", "did you mean 'xavier_uniform'")),
    (("run", "width.toml"), ("width.toml: recipe.hidden.0: expected greater than or equal to 1; got 0",)),
    (("run", "infinite.toml"), ("infinite.toml: recipe.optimizer.lr: expected a finite number; got inf",)),
    (("run", "code.toml"), ("model: os:abort is Python code", "say --allow-code")),
    (("run", "question.toml"), ("questions.0.a.arm: expected one of ['one']; got 'onw'", "did you mean 'one'")),
    (("run", "grid.toml"), ("grid.toml: grid: expected a table of lists of values", "got {'lr': []}")),
    (("run", "grid-empty.toml"), ("grid-empty.toml: grid: expected a table of lists of values", "got {}")),
    (("run", "trials.toml"), ("trials.toml: seeds: expected at most 1,000,000 trials", "1 arms x 100000000 seeds")),
    # other commands
    (("results",), ("FOLDER", "requires an argument")),
    (("results", "empty"), ("empty: no results here", "expected a folder that `fanin run` wrote")),
    (("results", "stores/text"), ("fanin.sqlite: cannot be read as a fanin store", "run into a new folder")),
    (("results", "stores/later"), ("schema 99", "this one reads", "--out")),
    (("results", "empty", "--json", "--csv"), ("--json and --csv: choose one",)),
    (("report", "stores"), ("stores: no results here", "there are stores/later, stores/text")),
    (("predict", "empty", "next"), ("expected random, --index N or --image FILE; got 'next'",)),
    (("predict", "empty", "--index", "1", "--image", "a.png"), ("--image and --index: choose one",)),
    (("predict", "stores/text"), ("cannot be read as a fanin store",)),
    (("propagate", "--hidden", "2x-3"), ("hidden: expected widths such as [256, 256] or '256x2'; got '2x-3'",)),
    (("propagate", "--dropout", "1"), ("dropout: expected less than 1; got 1.0",)),
    (("propagate", "--activation", "relux"), ("activation: expected one of", "did you mean 'relu'")),
    (("propagate", "--init", "{name = 3}"), ("init: expected a name or a table with a name", "{'name': 3}")),
    (("propagate", "--init", ",".join(["zeros"] * 65)), ("expected at most 64 settings; got 65",)),
    (("propagate", "--seeds", "0"), ("--seeds: expected at least 1; got 0",)),
    (("propagate", "--out", "empty"), ("--out empty: expected the path of a file", "page.html")),
    (("propagate", "--data", "nan.csv"), ("nan.csv, line 21", "expected a finite number")),
    (("pretrain", "--layers", "0"), ("--layers: expected widths from the data up", "'0'")),
    (("pretrain", "--lr", "nan"), ("--lr: expected a positive number", "'nan'")),
    (("pretrain", "--epochs", "1,2"), ("--epochs: expected one number, or one for each of 3 layers; got 2",)),
    (("pretrain", "--method", "denoising", "--k", "2"), ("--k 2: expected with --method dbn alone",)),
    (("pretrain", "--ais", "10x1"), ("--ais: expected TEMPERATURESxCHAINS", "'10x1'")),
    (("pretrain", "--data", "good.csv", "--layers", "2"), ("expected values from 0 to 1", "--visible gaussian")),
    (("sample", "empty"), ("no trained stack here", "fanin pretrain --out empty")),
    (("sample", "empty", "--n", "0"), ("--n: expected at least 1; got 0",)),
    (("sample", "junk.safetensors"), ("junk.safetensors: cannot be read as a stack", "header too small")),
    (("sample", "promise.safetensors"), ("promise.safetensors: cannot be read as a stack", "header too large")),
    (("sample", "other.safetensors"), ("expected a stack that fanin saved (fanin-stack-1); got pt",)),
    (("sample", "unreadable.safetensors"), ("its metadata cannot be read",)),
    (("sample", "list.safetensors"), ("its parameters and its state do not make a model",)),
    (("sample", "kind.safetensors"), ("do not make a model", "'Popen'")),
    (("init", "show"), ("expected at least one initialiser", "fanin list initializers")),
    (("init", "show", "xavir"), ("init: expected one of", "did you mean 'xavier_normal'")),
    (("init", "show", "normal", "--shape", "3"), ("--shape: expected out x in, such as 256x784", "'3'")),
    (("init", "show", '{name = "normal", std = -1}'), ("init.std: expected greater than 0; got -1",)),
]

# what --data names, and fragments of what is said of it
DATA: list[tuple[str, tuple[str, ...]]] = [
    ("minst", ("unknown data set 'minst'", "did you mean 'mnist'")),
    ("", ("unknown data set ''", "expected auto, mnist, digits")),
    ("gone.csv", ("gone.csv: no such file", "did you mean")),
    ("nowhere/x.npz", ("no such file", "nor is there a folder nowhere")),
    ("/dev/zero", ("/dev/zero: expected a file, given a folder or a device",)),
    ("~nobody_of_that_name/x.csv", ("write the whole path",)),
    ("numbers.txt", ("numbers.txt: expected a .npz or .csv", "given a file ending in .txt")),
    ("array.npy", ("array.npy: expected inputs and labels, given a single array", "give the folder")),
    ("a,b,c", ("expected two IDX files, 'images,labels', given 3 parts",)),
    ("empty", ("empty: expected a folder of IDX files, or of pictures", "<class>")),
    ("emptyclass", ("expected pictures", "class 'a', found none")),
    ("pictures", ("0.png: cannot be read as a picture", "expected PNG, JPEG")),
    ("pipes", ("0.png: expected a file, given a folder or a device",)),
    ("arrays", ("X.npy: truncated: expected", "save it again with np.save")),
    ("empty.csv", ("empty.csv", "expected at least one feature and a label", "'an empty file'")),
    ("cell.csv", ("cell.csv, line 21, column '2': expected a finite number, given 'oops'", "correct or drop")),
    ("huge.csv", ("line 21, column '2'", "'1e300'")),
    ("underscore.csv", ("line 21, column '2': expected a finite number, given '1_000'",)),
    ("short.csv", ("line 21: expected 3 cells as in the first line, given 2",)),
    ("label.csv", ("line 21, column '3': expected a label, given an empty cell",)),
    ("fraction.csv", ("expected class labels, given '0.5' for example 21", "cut into classes first")),
    ("zero.csv", ("zero.csv, line 21",)),
    ("latin.csv", ("latin.csv: expected UTF-8 text", "convert it")),
    ("utf16.csv", ("utf16.csv: expected UTF-8 text",)),
    ("one.csv", ("expected at least 2 examples of some class",)),
    ("cut.csv.gz", ("gzip file cut off before its end", "copy or download it again")),
    ("wrong.csv.gz", ("corrupt gzip file", "copy or download it again")),
    ("text.npz", ("text.npz: cannot be read as an .npz archive", "np.savez")),
    ("names.npz", ("expected the arrays x_train, y_train", "given a, b", "rename them")),
    ("objects.npz", ("array X: expected numbers or text, given object", "pickled objects may run code")),
    ("complex.npz", ("array X: expected numbers or text, given complex128",)),
    ("infinite.npz", ("expected finite numbers", "the first is inf in row 2, column 0")),
    ("lengths.npz", ("expected one label for each example, given 3 examples and 4 labels",)),
    ("onehot.npz", ("if these are one-hot rows, pass class indices", "y.argmax(axis=1)")),
    ("below.npz", ("expected class indices from 0, given -1 in row 2",)),
    ("single.npz", ("expected at least 2 classes", "nothing to tell apart")),
    ("gaps.npz", ("with few gaps, given 2 different values up to 1000000",)),
    ("header.npz", ("array X: cannot be read as an .npy array: its header is corrupt",)),
    ("lie.npz", ("its header promises 128 bytes", "the archive holds 120")),
    ("minus.npz", ("expected sizes from 0, given shape (4, -4)",)),
    ("magic-idx1-ubyte,labels-idx1-ubyte", ("not an IDX file: expected at offset 0", "89 50 4e 47")),
    ("short-idx2-ubyte,labels-idx1-ubyte", ("truncated: expected 28 bytes", "actual size 27")),
    ("long-idx2-ubyte,labels-idx1-ubyte", ("longer than its header says: expected 28 bytes", "actual size 29")),
    ("huge-idx2-ubyte,labels-idx1-ubyte", ("header promises", "more than the 4,294,967,296", "FANIN_MAX_BYTES")),
    ("code-idx2-ubyte,labels-idx1-ubyte", ("not an IDX file", "a type of 08, 09", "00 00 0f 02")),
    ("none-idx2-ubyte,labels-idx1-ubyte", ("holds 0 examples", "holds 4 labels")),
    ("nan-idx2-float,labels-idx1-ubyte", ("expected finite numbers, given 1 NaN", "row 2")),
    ("many-idx2-ubyte,labels-idx1-ubyte", ("holds 5 examples", "holds 4 labels", "do not belong together")),
    ("labels-idx1-ubyte,many-idx2-ubyte", ("expected labels of one dimension, given 2", "images first, then labels")),
    ("no_such_module:data", ("no module named 'no_such_module'",)),
    ("os:no_such_name", ("os has no 'no_such_name'",)),
    ("os:sep", ("os:sep: expected (X, y)", "given str")),
]

PYTHON = [
    (lambda: fanin.load("os:getcwd", allow_code=False), DataError, ("names Python code", "name it yourself")),
    (lambda: fanin.load("x.csv", data_dir="~nobody_of_that_name"), DataError, ("data_dir ~nobody", "the whole path")),
    (lambda: fanin.load("a\0b/x.csv"), DataError, ("no such file or folder",)),
    (lambda: fanin.find("a\0b.toml"), RecipeError, ("cannot be read", "null byte")),
    (lambda: fanin.find("lab8"), RecipeError, ("unknown study 'lab8'", "did you mean 'lab9'")),
    (lambda: fanin.Recipe.from_dict({"epochs": 0}), RecipeError, ("epochs: expected greater than or equal to 1",)),
    (lambda: fanin.Recipe.from_dict({"epochs": "15"}), RecipeError, ("epochs: expected a valid integer; got '15'",)),
    (lambda: fanin.Recipe.from_dict({"hiden": [3]}), RecipeError, ("hiden: unknown key", "did you mean 'hidden'")),
    (lambda: fanin.Recipe(dropout=1.5), ValueError, ("dropout", "less than 1")),
    (lambda: fanin.Recipe(init="xavir"), ValueError, ("did you mean 'xavier_normal'",)),
    (lambda: fanin.Study.from_dict({"arms": [3]}), RecipeError, ("arms: expected a list of tables",)),
    (lambda: fanin.Study.from_dict({}), RecipeError, ("name: required, and not given",)),
    (lambda: fanin.find("good.toml")[0].arm("zeros"), RecipeError, ("has no arm 'zeros'", "its arms are default")),
    (lambda: fanin.find("good.toml")[0].changed(seeds=10**12), RecipeError, ("expected at most 1,000,000 trials",)),
    (lambda: fanin.run(fanin.find("good.toml"), out="good.csv", data="digits"), StoreError, ("is a file",)),
    (lambda: fanin.run(fanin.find("good.toml"), out="new", data="digits", jobs=-1), FaninError, ("jobs: expected",)),
    (lambda: fanin.run(fanin.find("good.toml"), out="new", data="one.csv"), DataError, ("at least 2 examples",)),
    (lambda: fanin.Store.open("empty"), StoreError, ("empty: no results here",)),
    (lambda: fanin.load_weights("junk.safetensors"), StoreError, ("cannot be read as fanin weights",)),
    (lambda: fanin.load_weights("other.safetensors"), StoreError, ("no recipe in its metadata",)),
    (lambda: fanin.load_weights("recipe.safetensors"), StoreError, ("do not make a network",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    path = tmp_path_factory.mktemp("bad")
    bad_files.make(path)
    return path


@pytest.fixture
def _there(folder, monkeypatch):
    """In the folder of bad files, which nothing may change."""
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before


def said_by(*arguments: str) -> str:
    """What the command says on standard error; it must exit with 2, print nothing, and show no traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(arguments)
    assert (caught.value.code, out.getvalue()) == (2, "")
    assert "Traceback" not in err.getvalue()
    return err.getvalue()


def short(value: object) -> str:
    return " ".join(value)[:60] if isinstance(value, tuple) else str(value)[:60]


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize(("arguments", "fragments"), COMMANDS, ids=short)
def test_a_bad_command_says_what_is_wrong(arguments, fragments):
    said = said_by(*arguments)
    assert [fragment for fragment in fragments if fragment not in said] == [], said


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize(("spec", "fragments"), DATA, ids=short)
def test_bad_data_say_what_is_wrong(spec, fragments):
    said = said_by("run", "good.toml", "--data", spec, "--out", "new")
    assert [fragment for fragment in fragments if fragment not in said] == [], said


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize(("call", "kind", "fragments"), PYTHON, ids=[" ".join(row[2])[:60] for row in PYTHON])
def test_a_bad_call_says_what_is_wrong(call, kind, fragments):
    with pytest.raises(kind) as caught:
        call()
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == [], str(caught.value)


def test_there_are_enough_and_no_two_alike():
    rows = [*(arguments for arguments, _ in COMMANDS), *(spec for spec, _ in DATA)]
    assert len(set(rows)) == len(rows)
    assert len(rows) + len(PYTHON) >= 150


@pytest.mark.usefixtures("_there")
def test_the_good_ones_beside_them_are_read():
    """So that what is refused is refused for what is bad in it."""
    assert len(fanin.load("good.csv").train) == 16
    assert fanin.find("good.toml")[0].seeds == 1
    with pytest.raises(AssertionError):
        said_by("list", "studies")
