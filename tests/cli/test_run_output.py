"""`fanin run` where what it says cannot be written or drawn: the run goes on, what it found is kept, and it is told."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from fanin.cli import main
from fanin.cli.output import shown
from fanin.cli.results import prepare
from fanin.cli.run import _same_command
from fanin.errors import FaninError
from fanin.report import vega
from fanin.store import Store

TINY = """
name = "tiny"
seeds = 2
[recipe]
hidden = [4]
epochs = 1
batch_size = 50
[[arms]]
name = "zeros"
init = "zeros"
"""


class Full(io.StringIO):
    """A file on a full disk, after so many writes."""

    def __init__(self, number=errno.ENOSPC, writes=0):
        super().__init__()
        self.error, self.left = OSError(number, os.strerror(number)), writes

    def write(self, text):
        if not self.left:
            raise self.error
        self.left -= 1
        return super().write(text)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the tiny study: (exit code, what is on standard output, on standard error)."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.setattr(vega, "start", lambda: None)  # seconds, and no page here has a chart

    def go(*more, out=None, err=None, folder=tmp_path / "out"):
        out, err = out or io.StringIO(), err or io.StringIO()
        arguments = ["run", str(tmp_path / "tiny.toml"), "--data", "digits", "--out", str(folder), "--jobs", "0", *more]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
            main(arguments)
        return caught.value.code, out, err

    return go


def trials(folder):
    with Store.open(folder) as store:
        return sum(len(arm) for s in store.studies() for arm in store.records(s.study).values())


def test_tables_that_cannot_be_written_do_not_stop_the_run(run, tmp_path):
    code, _, err = run(out=Full())
    assert code == 1
    assert "tables cannot be shown (No space left on device): see `fanin results" in err.getvalue()
    assert "2 trials run. Page: " in err.getvalue()
    assert trials(tmp_path / "out") == 2
    assert run()[0] == 0


def test_a_reader_that_has_gone_away_is_no_error(run, tmp_path):
    code, _, err = run(out=Full(errno.EPIPE))
    assert code == 0
    assert "cannot be shown" not in err.getvalue()
    assert trials(tmp_path / "out") == 2


@pytest.mark.parametrize("writes", [0, 2])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_log_that_cannot_be_written_does_not_stop_the_run(run, tmp_path, writes, number):
    """Its disk is full, its reader is gone, its terminal was closed."""
    code, out, err = run(err=Full(number, writes))
    assert code == 0
    assert len(err.getvalue().splitlines()) <= writes
    assert "zeros" in out.getvalue()
    assert trials(tmp_path / "out") == 2


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams(run, tmp_path, monkeypatch, stream):
    monkeypatch.setattr(contextlib, f"redirect_{stream}", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(sys, stream, None)  # as Python starts where it is closed
    assert run()[0] == 0
    assert trials(tmp_path / "out") == 2


def test_signs_that_an_encoding_lacks_are_replaced(run):
    raw = io.BytesIO()
    code, *_ = run(out=io.TextIOWrapper(raw, encoding="ascii"))
    assert code == 0
    assert b"zeros" in raw.getvalue()
    assert b"?" in raw.getvalue()


def test_names_that_an_encoding_lacks_are_told_in_a_line():
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="ascii")),
        pytest.raises(FaninError, match=r"cannot show '\\xe9' \(ascii\); set PYTHONIOENCODING=utf-8"),
        shown(),
    ):
        print("\xe9tude,0.97")


def test_json_that_cannot_be_written_is_told_in_a_line(run):
    code, _, err = run("--json", out=Full())
    assert code == 2
    assert "fanin: standard output cannot be written (No space left on device)" in err.getvalue()
    assert "Traceback" not in err.getvalue()


@pytest.mark.parametrize("limit", [3 * 2**30, 2**40])
def test_a_page_that_cannot_be_drawn_costs_only_itself(run, tmp_path, monkeypatch, limit):
    """Under `ulimit -v` the charts' engine aborts the process."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    code, out, err = run("--json")
    short = limit < 2**36
    assert code == (1 if short else 0)
    assert ("No page: the page cannot be drawn under a limit on address space" in err.getvalue()) == short
    assert (tmp_path / "out" / "report.html").exists() != short
    assert '"tiny"' in out.getvalue()


def test_a_page_that_cannot_be_written_costs_only_itself(run, tmp_path):
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    code, out, err = run("--json")
    assert code == 1
    assert "2 trials run. No page: " in err.getvalue()
    assert '"tiny"' in out.getvalue()


def test_charts_that_panic_do_not_stop_the_run(monkeypatch):
    class PanicError(BaseException):
        """What vl-convert raises where it has no more files, for example."""

    def start(error):
        def fail():
            raise error

        monkeypatch.setattr(vega, "start", fail)
        prepare()

    start(PanicError())
    start(FaninError())
    with pytest.raises(KeyboardInterrupt):
        start(KeyboardInterrupt())


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_folder_with_too_long_a_name(run, tmp_path, more):
    code, _, err = run(*more, folder=tmp_path / ("x" * 300))
    assert code == 2
    assert "--out: expected a path; got one that is too long" in err.getvalue()


def test_the_command_to_go_on_can_be_typed(monkeypatch):
    arguments = ["run", "a b.toml", "--out", "it's"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/fanin/__main__.py", *arguments])
    assert _same_command() == f"{sys.executable} -m fanin run 'a b.toml' --out 'it'\"'\"'s'"
    monkeypatch.setattr(sys, "argv", ["/nowhere/bin/fanin", *arguments])
    monkeypatch.setenv("PATH", "/nowhere")
    assert _same_command().startswith("/nowhere/bin/fanin run ")


@pytest.mark.parametrize("stream", ["full", "closed"])
def test_a_complaint_that_nobody_can_read_leaves_the_exit_code(monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, "stderr", Full() if stream == "full" else None)
    with pytest.raises(SystemExit) as caught:
        main(["results", "/nowhere/at/all"])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""  # and it is not put where results go


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")
@pytest.mark.parametrize(("before", "code"), [("SIG_DFL", 130), ("SIG_IGN", 7)])
def test_a_hung_up_terminal_interrupts_and_nohup_is_obeyed(before, code):
    program = f"""
import os, signal, time
from fanin import cli

def command(*_, **__):
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.2)
    return 7

signal.signal(signal.SIGHUP, signal.{before})
cli.app = command
cli.main(["list"])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code
