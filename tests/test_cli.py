"""The commands that a person types, as processes: what they print where, and their exit status."""

import json
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy import __version__
from tests.control.sidestep import COMMAND, Sidestep, command, execute
from tests.control.test_workers import free_address
from tests.fakes import ScriptedUpstream


@pytest.fixture
async def sidestep(tmp_path: Path) -> AsyncIterator[Sidestep]:
    upstream = ScriptedUpstream()
    await upstream.start()
    upstream.answer("www.example", "A", "www.example. 300 A 192.0.2.10")
    sidestep = Sidestep(tmp_path, upstream.address)
    await sidestep.start()
    yield sidestep
    await sidestep.stop()
    await upstream.stop()


async def test_version_is_that_of_the_package() -> None:
    for words in ("version", "--version"):
        assert await command(words) == (0, f"sidestep {__version__}\n", "")
    code, out, _ = await command("version", "-o", "json")
    assert (code, json.loads(out)) == (0, {"version": __version__})


async def test_schema_is_json() -> None:
    code, out, _ = await command("schema")
    assert code == 0
    assert json.loads(out)["properties"].keys() >= {"dns", "udp", "admin", "workers"}


async def test_output_to_a_full_disk_is_2() -> None:
    code, _, err = await execute("sh", "-c", '"$@" >/dev/full', "sh", *COMMAND, "schema")
    assert (code, err) == (2, "sidestep: cannot write: the disk is full; make room or write elsewhere\n")


def elsewhere(sidestep: Sidestep) -> Path:
    """The same configuration with another admin socket, so that nothing is taken over."""
    file = sidestep.config.with_name("elsewhere.yaml")
    file.write_text(
        sidestep.config.read_text().replace(str(sidestep.socket), str(sidestep.socket.with_name("b.sock")))
    )
    return file


async def test_run_goes_without_standard_error(sidestep: Sidestep) -> None:
    words = shlex.join([*COMMAND, "run", "--config", str(elsewhere(sidestep))])  # its ports are in use
    assert await execute("sh", "-c", f"{words} 2>&-") == (2, "", "")


async def test_check_config_finds_a_right_file_fine(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("dns: {}\n")
    assert await command("check-config", str(file)) == (0, f"{file} is fine\n", "")
    assert await command("check-config", "--config", str(file)) == (0, f"{file} is fine\n", "")


async def test_check_config_prints_a_line_per_error_with_its_place_and_key(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("dns:\n  listen: [nonsense]\n  timeout: 0s\nworkers: {dns: 0}\n")
    code, out, err = await command("check-config", str(file))
    assert (code, out) == (1, "")
    places = [line.split(": ")[:2] for line in err.splitlines()]
    assert places == [
        [f"{file}:2:12", "dns.listen[0]"],
        [f"{file}:3:12", "dns.timeout"],
        [f"{file}:4:16", "workers.dns"],
    ]


async def test_check_config_of_a_file_that_cannot_be_read_is_2(tmp_path: Path) -> None:
    code, out, err = await command("check-config", str(tmp_path / "none.yaml"))
    assert (code, out) == (2, "")
    assert f"cannot read {tmp_path}/none.yaml" in err
    assert (await command("check-config"))[0] == 2


async def test_check_config_of_two_files_is_2(tmp_path: Path) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text("dns: {}\n")
    code, out, err = await command("check-config", str(file), "--config", str(other))
    assert (code, out) == (2, "")
    assert "name one file, as FILE or with --config" in err


@pytest.mark.parametrize("words", [(), ("www.example", "--statsd", "a:1|c")])
async def test_explain_takes_either_a_name_or_a_line(words: tuple[str, ...]) -> None:
    code, out, err = await command("explain", *words)
    assert (code, out) == (2, "")
    assert "give either NAME or --statsd LINE" in err


async def test_run_with_a_file_that_cannot_be_read_is_2(tmp_path: Path) -> None:
    code, _, err = await command("run", "--config", str(tmp_path / "none.yaml"))
    assert code == 2
    assert err.startswith(f"sidestep: cannot read {tmp_path}/none.yaml")


async def test_run_with_a_file_that_turns_nothing_on_is_2(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("")
    code, _, err = await command("run", "--config", str(file))
    assert code == 2
    assert "dns section" in err


@pytest.mark.parametrize("words", [("status",), ("top", "--count", "1"), ("explain", "www.example")])
async def test_asking_where_nothing_runs_is_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"admin: {{socket: {tmp_path}/admin.sock}}\n")
    code, out, err = await command(*words, "--config", str(file))
    assert (code, out) == (2, "")
    assert f"no sidestep runs here: there is no socket {tmp_path}/admin.sock" in err


async def test_status_is_a_text_for_people_and_json_for_programs(sidestep: Sidestep) -> None:
    await sidestep.ask("www.example")
    code, out, err = await command("status", "--config", str(sidestep.config))
    assert (code, err) == (0, "")
    assert sidestep.address in out
    assert sidestep.upstream in out
    code, out, _ = await command("status", "-o", "json", "--config", str(sidestep.config))
    assert code == 0
    assert json.loads(out)["workers"][0]["role"] == "dns"


async def test_status_is_1_when_something_needs_a_look(sidestep: Sidestep) -> None:
    sidestep.write("dns: [\n")
    await sidestep.said("not reloaded")
    good = sidestep.config.with_name("good.yaml")
    good.write_text(f"admin: {{socket: {sidestep.socket}}}\n")
    code, out, _ = await command("status", "--config", str(good))
    assert code == 1
    assert "! the configuration file is wrong" in out


async def test_explain_tells_the_steps(sidestep: Sidestep) -> None:
    code, out, _ = await command("explain", "www.example", "--config", str(sidestep.config))
    assert code == 0
    assert sidestep.upstream in out
    code, out, _ = await command("explain", "www.example", "aaaa", "-o", "json", "--config", str(sidestep.config))
    assert code == 0
    assert json.loads(out)["type"] == "AAAA"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a..b",), "'a..b' is not a domain name"),
        (("a", "BOGUS"), "'BOGUS' is no record type"),
        (("bücher.example",), "write it the way it is asked, as xn--"),
    ],
)
async def test_explaining_what_is_no_question_is_2(sidestep: Sidestep, words: tuple[str, ...], reason: str) -> None:
    code, out, err = await command("explain", *words, "--config", str(sidestep.config))
    assert (code, out) == (2, "")
    assert reason in err


async def test_top_prints_a_line_a_second(sidestep: Sidestep) -> None:
    await sidestep.ask("www.example")
    code, out, _ = await command("top", "--count", "1", "--config", str(sidestep.config))
    assert code == 0
    assert len(out.splitlines()) == 2
    code, out, _ = await command("top", "--count", "1", "-o", "json", "--config", str(sidestep.config))
    assert code == 0
    assert json.loads(out).keys() >= {"questions", "hit_ratio", "p99_ms"}


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")


@as_root
@pytest.mark.parametrize(
    ("mount", "reason"), [("ro", "the file system is read-only"), ("nr_inodes=2", "the disk is full")]
)
async def test_run_without_a_place_for_its_socket_is_2(tmp_path: Path, mount: str, reason: str) -> None:
    file = tmp_path / "a.yaml"
    disk = tmp_path / "disk"
    disk.mkdir()
    file.write_text(
        f"dns: {{listen: ['{free_address()}'], zones: [{{suffix: ., upstreams: [192.0.2.1]}}]}}\n"
        f"admin: {{listen: '{free_address()}', socket: {disk}/run/admin.sock}}\n"
    )
    script = f"mount -t tmpfs -o {mount} none {disk} && exec {shlex.join(COMMAND)} run --config {file}"
    code, _, err = await execute("unshare", "--mount", "sh", "-c", script)
    assert code == 2, err
    assert err.startswith(f"sidestep: cannot make the admin socket {disk}/run/admin.sock: {reason}")
    assert "admin.socket" in err


async def test_run_with_too_few_descriptors_is_2(sidestep: Sidestep) -> None:
    code, _, err = await execute("prlimit", "--nofile=64:64", *COMMAND, "run", "--config", str(sidestep.config))
    assert code == 2
    assert "only 64 file descriptors are allowed" in err


async def test_an_admin_port_in_use_is_2(sidestep: Sidestep) -> None:
    file = sidestep.config.with_name("other.yaml")
    file.write_text(
        f"dns: {{listen: ['{free_address()}'], zones: [{{suffix: ., upstreams: [192.0.2.1]}}]}}\n"
        f"admin: {{listen: '{sidestep.admin}', socket: {file}.sock}}\n"
    )
    code, _, err = await command("run", "--config", str(file))
    assert code == 2
    assert f"{sidestep.admin}/tcp: the port is in use by python" in err
    assert "admin.listen" in err


async def test_a_second_run_of_the_same_ports_that_cannot_take_over_is_2(sidestep: Sidestep) -> None:
    code, _, err = await command("run", "--config", str(elsewhere(sidestep)))
    assert code == 2
    assert f"{sidestep.address}/udp: the port is in use by python" in err
    assert f"(pid {sidestep.process.pid})" in err
