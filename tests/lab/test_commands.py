"""`sidestep lab` as it is typed: its help, its list, its refusals, its exit status."""

import errno
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.lab import cluster, output, scenarios, shell
from proxy.lab.outcome import Mode
from proxy.lab.scenario import Scenario
from proxy.lab.tools import Unavailable
from tests.control.sidestep import command
from tests.lab.results import Scripted, outcome
from tests.lab.test_session import FakeClusters


def lab(*words: str) -> Result:
    return CliRunner().invoke(main, ["lab", *words], catch_exceptions=False)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Scenario]:
    """The scenarios that there are, over clusters that start nothing."""
    there: list[Scenario] = [Scripted(modes=("nftables",)), Scripted(name="other", modes=("iptables",))]
    monkeypatch.setattr(scenarios, "SCENARIOS", tuple(there))
    monkeypatch.setattr(cluster, "running", FakeClusters(tmp_path).running)
    return there


async def test_the_command_is_there_and_others_do_not_load_it() -> None:
    code, out, err = await command("lab", "--help")
    assert (code, err) == (0, "")
    assert {"list", "run", "shell"} <= {line.split()[0] for line in out.splitlines() if line.strip()}


def test_the_list_names_all() -> None:
    text = lab("list").output
    assert [line.split()[0] for line in text.splitlines()] == [one.name for one in scenarios.SCENARIOS]
    assert [one["scenario"] for one in json.loads(lab("list", "-o", "json").output)] == [
        one.name for one in scenarios.SCENARIOS
    ]


def test_an_unknown_name_is_2_and_names_the_known(scripted: list[Scenario]) -> None:
    ran = lab("run", "nonsense")
    assert ran.exit_code == 2
    assert ran.stderr == "sidestep: no scenario is named nonsense; there are: scripted, other\n"


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    ran = lab()
    assert ran.exit_code == 2
    assert ran.stderr == "sidestep: needs root to make network namespaces: run it with sudo\n"


def test_all_as_expected_is_0(scripted: list[Scenario], tmp_path: Path) -> None:
    ran = lab("--report", str(tmp_path / "report"))
    assert ran.exit_code == 0
    assert "2 as expected" in ran.stdout
    assert ran.stderr.endswith(f"report: {tmp_path}/report/index.html\n")
    assert (tmp_path / "report/index.html").exists()


def test_results_are_in_the_order_of_the_scenarios_whichever_cluster_came_first(scripted: list[Scenario]) -> None:
    results = json.loads(lab("-o", "json").stdout)["results"]
    assert [(one["scenario"], one["mode"]) for one in results] == [("scripted", "nftables"), ("other", "iptables")]


def test_options_may_stand_on_both_sides_of_run(scripted: list[Scripted]) -> None:
    for words in (("--short", "-o", "json", "run", "scripted"), ("run", "--short", "-o", "json", "scripted")):
        ran = lab(*words)
        assert [one["scenario"] for one in json.loads(ran.stdout)["results"]] == ["scripted"]
    assert [run.short for run in scripted[0].ran] == [True] * 4
    lab("run", "scripted", "--mode", "iptables")
    assert len(scripted[0].ran) == 4


def test_options_before_list_and_shell_are_heard(scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one["scenario"] for one in json.loads(lab("-o", "json", "list").stdout)] == ["scripted", "other"]
    monkeypatch.setattr(shell, "bring_up", lambda mode, _: [mode])
    assert lab("--mode", "iptables", "shell").stdout == "iptables\n"
    assert lab("shell").stdout == "nftables\n"


def test_an_expectation_that_failed_is_1(scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "SCENARIOS", (Scripted(sidestep=outcome(10, 9)),))
    ran = lab("--mode", "nftables")
    assert ran.exit_code == 1
    assert "sidestep: not so: it loses nothing" in ran.stdout


def test_nothing_but_skips_is_2(scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "SCENARIOS", (Scripted(needs=("no-such-program",)),))
    ran = lab("--mode", "nftables")
    assert ran.exit_code == 2
    assert "not installed: no-such-program" in ran.stdout


def test_a_report_that_cannot_be_written_is_2(scripted: list[Scenario], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = lab("--report", str(tmp_path / "file" / "below"))
    assert ran.exit_code == 2
    assert ran.stderr == f"sidestep: cannot write the report to {tmp_path}/file/below: Not a directory\n"
    assert not any(one.ran for one in scripted)


def test_a_report_is_written_also_when_nobody_reads_the_table(
    scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(output, "print_results", gone)
    assert lab("--report", str(tmp_path)).exit_code == 1
    assert "2 as expected" in (tmp_path / "index.html").read_text()


def test_an_interruption_prints_what_was_finished(scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = Scripted(KeyboardInterrupt(), name="interrupted")
    monkeypatch.setattr(scenarios, "SCENARIOS", (Scripted(), interrupted))
    ran = lab("--mode", "nftables")
    assert ran.exit_code == 130
    assert "1 as expected" in ran.stdout
    assert ran.stderr.endswith("interrupted; everything is taken down\n")


@pytest.mark.parametrize(
    "error", [RuntimeError("no API server"), Unavailable("no API server"), OSError(0, "no API server")]
)
def test_a_cluster_that_fails_later_leaves_the_results_of_others(
    scripted: list[Scenario], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    clusters = FakeClusters(tmp_path / "clusters")
    (tmp_path / "clusters").mkdir()

    def running(mode: Mode, **options: Any) -> Any:
        if mode == "nftables":
            raise error
        return clusters.running(mode, **options)

    monkeypatch.setattr(cluster, "running", running)
    ran = lab("-o", "json", "--report", str(tmp_path / "report"))
    assert ran.exit_code == 2
    assert [one["scenario"] for one in json.loads(ran.stdout)["results"]] == ["other"]
    assert "sidestep: " in ran.stderr
    assert "no API server" in ran.stderr
    assert "1 as expected" in (tmp_path / "report/index.html").read_text()


def test_a_shell_that_is_interrupted_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "bring_up", lambda *_: signal.raise_signal(signal.SIGTERM))
    ran = lab("shell")
    assert (ran.exit_code, ran.stdout) == (130, "")
    assert ran.stderr == "interrupted: taking everything down\ninterrupted; everything is taken down\n"
