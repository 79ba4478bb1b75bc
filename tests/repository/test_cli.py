"""The command line: tables of a data set, one sentence for what a person can mend, quick help."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import mx2
from typer.testing import CliRunner

from defectkit import DefectkitError, cli
from defectkit.data import demo
from defectkit.data.dataset import Dataset
from defectkit.structures.record import DefectRecord
from defectkit.teach import doctor

HOST = mx2("MoS2", vacuum=8.0, size=(3, 3, 1))
DOPANTS = ("Li", "Cu", "Ag", "Au", "Na")
RUN_MAIN = [sys.executable, "-c", "from defectkit.cli import main; main()"]


def record(number: int) -> DefectRecord:
    """A MoS2 sheet with an adatom of its own height; every tenth row is not converged."""
    atoms = HOST.copy()
    atoms.append(DOPANTS[number % 5])
    top = HOST[0]
    atoms.positions[-1] = top.position + [0, 0, 3.2 + 0.01 * number]
    converged = number % 10 != 0
    mu, host_energy, eform = -2.0, -150.0, 1.0 + 0.1 * number
    return DefectRecord(
        uid=str(number),
        atoms=atoms,
        host="MoS2",
        label_source="made up",
        dopant=atoms[-1].symbol,
        defecttype="adsorbate",
        eform=eform,
        spin=0.5,
        converged=converged,
        conv1=0.0 if converged else 0.2,
        conv2=0.0,
        en1=host_energy + mu + eform,
        en2=host_energy + mu + eform,
        hostenergy=host_energy,
        dopant_chemical_potential=mu,
        extension_factor=1.0,
    )


@pytest.fixture
def run(monkeypatch):
    """Runs a command on forty rows made here, whatever data set it names."""
    data = Dataset("made", "made up", [record(n) for n in range(40)], {"MoS2": HOST})
    monkeypatch.setattr("defectkit.data.load", lambda name, path=None: data)
    return lambda *words: CliRunner().invoke(cli.app, words)


def table(text: str) -> dict[str, list[str]]:
    """Rows of printed tables by their first column, cells being two spaces apart."""
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in rows}


def test_info_describes_the_data_set(run):
    result = run("data", "info")
    rows = table(result.stdout)
    assert rows["labels"] == ["made up"]
    assert rows["rows"] == ["40"]
    assert rows["converged"] == ["36"]
    assert rows["dopants"] == ["5"]
    assert rows["adsorbate"] == ["40 (100.0%)"]
    assert rows["50%"] == ["2.950", "0.500"]


def test_clean_shows_the_waterfall_and_writes_what_stays(run, tmp_path):
    result = run("data", "clean", "--rules", "proposal", "--output", str(tmp_path / "kept.csv"))
    assert table(result.stdout)["not_converged"][:2] == ["4", "36"]
    lines = (tmp_path / "kept.csv").read_text().splitlines()
    assert len(lines) == 37
    assert "eform" in lines[0]


def test_split_saves_disjoint_parts(run, tmp_path):
    path = tmp_path / "split.json"
    result = run("data", "split", "--kind", "dopant", "--fold", "0", "--output", str(path))
    assert result.exit_code == 0, result.output
    split = json.loads(path.read_text())
    parts = [split[name] for name in ("train", "valid", "test", "calibration")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 36
    assert table(result.stdout)["test"] == [str(len(split["test"]))]


def test_split_holds_out_what_is_named(run, tmp_path):
    path = tmp_path / "split.json"
    words = ("--kind", "leave-one-dopant-out", "--held-out", "Cu", "--output", str(path))
    assert run("data", "split", *words).exit_code == 0
    held = json.loads(path.read_text())["test"]
    assert {DOPANTS[int(uid) % 5] for uid in held} == {"Cu"}


def test_demo_build_passes_everything_on_and_says_the_rate(monkeypatch, tmp_path):
    asked = []

    def build(path, rows, seed, workers, scheduler, progress, other):
        asked.append((path, rows, seed, workers, scheduler, other))
        progress("rows", 2, rows)
        progress("rows", rows, rows)

    monkeypatch.setattr(demo, "build", build)
    path = tmp_path / "demo.db"
    words = ["demo", "build", "--rows", "9", "--seed", "3", "--workers", "2", "--output", str(path)]
    result = CliRunner().invoke(cli.app, words)
    assert asked == [(path, 9, 3, 2, None, None)]
    assert re.search(r"7 rows computed in \d+ s, [\d,.]+ rows/s", result.stdout)


def test_an_error_for_people_is_one_sentence_without_traceback():
    result = subprocess.run(
        [*RUN_MAIN, "data", "info", "nothing"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("defectkit: There is no data set 'nothing'")
    assert result.stderr.count("\n") == 1


SHOWS = r"""
import sys
import typer
from tqdm import tqdm
from defectkit import DefectkitError, cli

def shows():
    print("MAE 0.2 eV, 1 μB, 2 Å ✓")
    for _ in tqdm(range(2), desc="μB"):
        pass
    print("spin of 1 μB ✓", file=sys.stderr)
    raise DefectkitError("row μ\x1b[2J\nÅ is odd")

cli.app = shows
cli.main()
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8", "ascii:strict"])
def test_a_console_that_lacks_a_letter_ends_no_command(encoding):
    result = subprocess.run(
        [sys.executable, "-c", SHOWS],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert result.returncode == 1, result.stderr
    assert b"Traceback" not in result.stderr
    assert result.stdout.startswith(b"MAE 0.2 eV, 1 ")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(b"defectkit: row ")
    assert last.endswith(b" is odd")
    assert b"\x1b[2J" not in last


def test_control_characters_of_names_do_not_reach_the_terminal(capsys):
    cli._print_table(["name\x07", "n"], [("\x1b[31mred\u202e", "1"), ("plain", "22")])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].split() == [r"name\x07", "n"]
    assert lines[2].split() == [r"\x1b[31mred\u202e", "1"]
    assert lines[2].index("1", 20) == lines[3].index("22") + 1, (
        "columns do not stand below each other"
    )


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999", "http"])
def test_ports_that_do_not_exist_are_refused(port, monkeypatch):
    monkeypatch.setattr("defectkit.teach.lecture.serve", lambda port: pytest.fail("served"))
    result = CliRunner().invoke(cli.app, ["present", "--port", port])
    assert result.exit_code == 2
    assert "--port" in result.stderr


@pytest.mark.parametrize("command", [["solutions"], ["tour", "00"], ["figures"]])
@pytest.mark.parametrize("below", ["", "below"])
def test_an_output_folder_that_is_a_file_is_named(command, below, tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("mine")
    result = CliRunner().invoke(cli.app, [*command, "--output", str(notes / below)])
    assert isinstance(result.exception, DefectkitError)
    assert str(notes) in str(result.exception)
    assert notes.read_text() == "mine"


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from defectkit import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print(*{'torch', 'pandas', 'ase', 'nbformat'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    assert "doctor" in result.stdout
    assert result.stdout.splitlines()[-1] == ""


def test_notebooks_check_names_the_outdated(monkeypatch):
    from defectkit.teach import notebooks

    monkeypatch.setattr(notebooks, "outdated", lambda: ["05_x.ipynb"])
    result = CliRunner().invoke(cli.app, ["notebooks", "--check"])
    assert result.exit_code == 1
    assert "05_x.ipynb" in result.stderr
    monkeypatch.setattr(notebooks, "outdated", list)
    assert CliRunner().invoke(cli.app, ["notebooks", "--check"]).exit_code == 0


def test_solutions_are_written_where_asked(tmp_path):
    result = CliRunner().invoke(cli.app, ["solutions", "--output", str(tmp_path)])
    assert Path(result.stdout.split()[0]).parent == tmp_path
    assert (tmp_path / "00_start_here.ipynb").exists()


def test_doctor_finds_this_environment_healthy():
    report = doctor.report()
    wrong = [f for f in report.findings if f.ok is False]
    assert report.healthy, wrong
    assert "✓ 3D views: Python asks for front end" in repr(report)
    assert "– WebGL: known to your browser alone" in repr(report)
    assert any(finding.what == "chromium" for finding in report.findings)


def test_doctor_finds_other_versions_and_missing_packages(monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["numpy==1.0", "no-such==2", "x; extra=='y'"]
    )
    (packages,) = (f for f in doctor.report().findings if f.what == "packages")
    assert not packages.ok
    assert f"numpy is {np.__version__}, tested with 1.0" in packages.advice
    assert "no-such is missing" in packages.advice


@pytest.mark.parametrize(("cuda", "said"), [(None, "CPU"), ("13.0", "CUDA 13.0")])
def test_doctor_says_which_pytorch_is_there(monkeypatch, cuda, said):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (build,) = (f for f in doctor.report().findings if f.what == "PyTorch build")
    assert (build.value, build.ok) == (said, True)


def test_doctor_finds_views_whose_javascript_differs(monkeypatch):
    monkeypatch.setattr(doctor, "_front_end", lambda name: "9.9.9")
    (views,) = (f for f in doctor.report().findings if f.what == "3D views")
    assert not views.ok
    assert "JupyterLab has 9.9.9" in views.value


def test_doctor_respects_the_memory_of_a_container(tmp_path):
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("500000000\n")
    assert doctor.memory_gb(tmp_path / "memory.max") == pytest.approx((2.0, 1.5), abs=0.01)
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.memory_gb(tmp_path / "memory.max")[0] == doctor.memory_gb(tmp_path / "none")[0]


@pytest.mark.slow
def test_the_bundled_demo_says_that_it_is_not_dft():
    result = CliRunner().invoke(cli.app, ["data", "info", "demo"])
    assert result.exit_code == 0, result.exception
    assert table(result.stdout)["labels"] == ["CHGNet-0.3.0"]
    assert int(table(result.stdout)["rows"][0].replace(",", "")) >= 5000


@pytest.mark.parametrize(
    ("line", "option"),
    [
        *(
            (f"{command} --seed {seed}", "--seed")
            for command in (
                "train tiny.yaml",
                "tune tiny.yaml",
                "bench graphs",
                "data split",
                "demo build",
            )
            for seed in ("-1", "4294967296", "nan")
        ),
        ("data split --fold -1", "--fold"),
        ("data split --calibration -0.1", "--calibration"),
        ("data split --calibration 1.5", "--calibration"),
        ("demo build --rows 0", "--rows"),
        ("demo build --rows -5", "--rows"),
        ("demo build --workers 0", "--workers"),
        ("present --port 99999", "--port"),
        ("present --port 0", "--port"),
    ],
)
def test_a_number_out_of_its_range_is_said_at_once_with_its_option(line, option, tmp_path):
    before = set(sys.modules)
    result = CliRunner().invoke(cli.app, line.split(), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert not {name for name in set(sys.modules) - before if name.startswith("defectkit.")}


def test_a_table_or_split_that_cannot_be_written_is_one_sentence(run, tmp_path):
    for words in (("clean", "--output"), ("split", "--output")):
        result = run("data", words[0], words[1], str(tmp_path / "no" / "file"))
        assert isinstance(result.exception, DefectkitError)
        assert "its folder does not exist" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
