"""`wafer-lab demo` before it serves: what it refuses, and what it does not wait for."""

import builtins
import socket
import sys

import pytest
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.errors import UserError


def refused(*arguments) -> str:
    """The one message that the command ends with; `main` makes exit status 2 of it."""
    result = CliRunner().invoke(app, ["demo", *map(str, arguments)])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


@pytest.fixture
def handlers():
    import signal

    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def elsewhere():
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_a_missing_model(tmp_path):
    assert "there is no model at" in refused(tmp_path / "nothing.onnx")


def test_a_missing_package(tmp_path, monkeypatch):
    monkeypatch.setattr("wafer_lab.cli.demo.find_spec", lambda name: None)
    assert refused(tmp_path) == "the demo needs the package gradio; pip install wafer-lab[demo]"


def test_a_port_in_use(tmp_path, elsewhere, handlers):
    pytest.importorskip("gradio")
    told = refused(tmp_path, "--port", elsewhere)
    assert told == f"cannot listen on 127.0.0.1:{elsewhere} (Address already in use); choose another --port or --host"


def test_an_address_of_another_machine(tmp_path, handlers):
    pytest.importorskip("gradio")
    assert "cannot listen on 192.0.2.1:0" in refused(tmp_path, "--host", "192.0.2.1", "--port", 0)


@pytest.mark.parametrize("content", [b"", b"not a model", "theirs"])
def test_a_file_that_is_no_model_of_ours(tmp_path, content, handlers):
    for package in ("gradio", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    file = tmp_path / "other.onnx"
    if content == "theirs":
        import onnx
        from onnx import TensorProto, helper

        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    else:
        file.write_bytes(content)
    told = refused(file, "--port", 0)
    assert "other.onnx" in told
    assert "wafer-lab export" in told


def test_nothing_imports_gradio_unless_asked(monkeypatch):
    real = builtins.__import__

    def watched(name, *rest):
        assert name.partition(".")[0] != "gradio"
        return real(name, *rest)

    for name in [name for name in sys.modules if name.startswith(("wafer_lab.cli", "wafer_lab.demo"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", watched)
    import wafer_lab.cli.app
    import wafer_lab.demo.answer
    import wafer_lab.demo.batch

    result = CliRunner().invoke(wafer_lab.cli.app.app, ["demo", "--help"])
    assert result.exit_code == 0
    assert "--host" in result.output


def test_an_export_is_shown_without_torch(tmp_path, monkeypatch):
    """Reading, asking and showing need numpy, onnxruntime, pyarrow and Pillow."""
    import subprocess

    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'matplotlib', 'mlflow'): sys.modules[name] = None\n"
        "import wafer_lab.demo.answer, wafer_lab.demo.batch, wafer_lab.demo.page, wafer_lab.demo.examples\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
