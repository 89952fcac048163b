import logging
import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest

from wafer_lab.config.entry import user_errors
from wafer_lab.config.validate import validate
from wafer_lab.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path
import hydra
from wafer_lab.config.entry import user_errors
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@user_errors()
def main(cfg):
    from wafer_lab.config.validate import validate
    validate(cfg)
    print("ran", cfg.name)
if __name__ == "__main__":
    try:
        with user_errors(Path(__file__).parent / "conf"):
            main()
    finally:
        print("heavy:", [name for name in ("torch", "lightning", "toy_fab") if name in sys.modules])
"""


@pytest.fixture
def launch(conf, tmp_path, monkeypatch, capsys):
    """Run a job function under Hydra as train.py does; returns exit status, stdout, stderr and the job's count."""
    monkeypatch.chdir(tmp_path)

    def run(job, *arguments):
        ran = []

        @hydra.main(version_base="1.3", config_path=str(conf), config_name="train")
        @user_errors()
        def main(cfg):
            validate(cfg)
            ran.append(cfg.seed)
            job(cfg)

        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", list(root.handlers))  # --info adds one, to a stream of this test's
        status = 0
        try:
            with user_errors(conf):
                main()
        except SystemExit as exit_:
            status = exit_.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err, ran

    return run


def nothing(cfg):
    pass


def mistake(cfg):
    if cfg.seed == 0:
        raise UserError("there is no file x; download it")


def test_a_good_run(launch, tmp_path):
    status, _, err, ran = launch(nothing)
    assert (status, err, ran) == (0, "", [0])
    assert (tmp_path / "out" / "run").is_dir()


def test_mistakes_stop_before_a_folder_is_made(launch, tmp_path):
    status, _, err, ran = launch(nothing, "model=nett", "trainer.max_epochs=ten")
    assert (status, ran) == (2, [])
    assert err.startswith("error: 2 things to put right:\n  model=nett: ")
    assert not (tmp_path / "out").exists()


def test_a_mistake_that_shows_in_the_run_is_one_line(launch):
    assert launch(mistake)[::2] == (2, "error: there is no file x; download it\n")


def test_a_whole_sweep_is_checked_before_its_first_job(launch, tmp_path):
    status, _, err, ran = launch(nothing, "--multirun", "seed=1,2", "model=net,nett")
    assert (status, ran) == (2, [])
    assert err.startswith("error: model=nett: ")
    assert not (tmp_path / "out").exists()


def test_a_sweep_goes_on_after_a_failed_job_and_still_fails(launch):
    status, _, err, ran = launch(mistake, "--multirun", "seed=0,1")
    assert (status, ran) == (2, [0, 1])
    assert err.startswith("error: there is no file x; download it\n")


def test_ctrl_c(launch):
    def interrupt(cfg):
        raise KeyboardInterrupt

    assert launch(interrupt)[::2] == (130, "interrupted\n")


def test_a_bug_keeps_its_traceback(launch):
    def bug(cfg):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        launch(bug)


def test_a_warning_is_one_line(launch):
    status, _, err, ran = launch(nothing, "imbalance=both")
    assert (status, ran) == (0, [0])
    assert err.startswith("warning: imbalance: sampler=balanced")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--cfg", "job"), ("--help",), ("--info", "defaults")])
def test_showing_checks_nothing(launch, arguments):
    status, out, _, ran = launch(nothing, *arguments, "trainer.max_epochs=ten")
    assert (status, ran) == (0, [])
    assert out


def test_showing_explains_what_cannot_be_composed(launch):
    status, _, err, _ = launch(nothing, "--cfg", "job", "model=nett")
    assert status == 2
    assert err.startswith("error: model=nett: model has no option nett; did you mean net?")


def test_flags_that_exclude_each_other(launch):
    assert launch(nothing, "--run", "--multirun")[0] == 2


@pytest.mark.parametrize(
    ("flag", "hint"), [("--mulitrun", "did you mean --multirun?"), ("-z", "see --help"), ("--multirum", "--multirun")]
)
def test_a_mistyped_flag_is_told_as_any_mistake(launch, flag, hint):
    status, _, err, ran = launch(nothing, flag, "seed=0")
    assert (status, ran) == (2, [])
    assert err.startswith(f"error: there is no option {flag}; ")
    assert hint in err
    assert len(err.splitlines()) == 1


def test_the_environment_is_left_as_it_was(launch, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    launch(mistake)
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_without_configs_it_serves_any_tool(capsys):
    with pytest.raises(SystemExit) as exit_, user_errors():
        raise UserError("no such run; list them with ls outputs/runs")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: no such run; list them with ls outputs/runs\n"


def test_script_answers_without_loading_anything_heavy(conf, toy_package):
    script = conf.parent / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(toy_package)])}
    command = [sys.executable, str(script), "model=nett", "loss.target=bad", "trainer.max_epochs=ten", "imbalance=both"]
    done = subprocess.run(command, cwd=conf.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert done.stdout == "heavy: []\n"
    done = subprocess.run(
        [sys.executable, str(script), "imbalance=both"],
        cwd=conf.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ran net\nheavy: []\n")
    assert done.stderr.startswith("warning: imbalance: sampler=balanced and class_weights=balanced")
