"""The table, the remarks, JSON and the page."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxy.lab import output, report
from proxy.lab.outcome import Outcome
from proxy.lab.output import Surroundings
from proxy.lab.scenario import Result, judge, skipped
from tests.lab.results import Scripted, outcome

MADE_WITH = Surroundings("6.18.0", "kube-proxy v1.36.3 (nftables)")


def result() -> Result:
    return judge(Scripted(), "nftables", {"kube-proxy": outcome(2000, 1200, 300), "sidestep": outcome(2000, 2000)})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(results: list[Result], out: io.StringIO) -> str:
    output.print_results(results, MADE_WITH, out)
    return out.getvalue()


def words(line: str) -> str:
    return " ".join(line.split())


def test_the_table_has_a_row_per_path() -> None:
    lines = printed([result()], io.StringIO()).splitlines()
    assert words(lines[0]) == "scenario mode path sent delivered misdelivered lost worst outage verdict"
    assert words(lines[1]) == "scripted nftables kube-proxy 2,000 1,200 300 500 80,000 ms as expected"
    assert words(lines[2]) == "Sidestep 2,000 2,000 0 0 0 ms"
    assert lines[-1] == "1 as expected; kube-proxy v1.36.3 (nftables), Linux 6.18.0"
    numbers = [line.rstrip().rfind("500") if "500" in line else -1 for line in lines[:3]]
    assert numbers[1] == lines[0].index("lost") + 1  # to the right, as "lost" is one longer


def test_where_nothing_was_run_there_is_no_table() -> None:
    assert printed([], io.StringIO()) == "nothing was run\n"


def test_a_skipped_scenario_has_a_row_and_its_reason() -> None:
    text = printed([skipped(Scripted(), "iptables", "not installed: coredns")], io.StringIO())
    assert re.search(r"scripted +iptables +- .* skipped\n", text)
    assert "scripted (iptables)\n  not installed: coredns\n" in text


def test_figures_notes_and_what_was_kept_are_remarks() -> None:
    ours = Outcome(sent=2, delivered=2, late=1, figures={"p99 ms": 1.23456}, notes=("a note",))
    ((name, said),) = output.remarks(
        [judge(Scripted(), "nftables", {"kube-proxy": outcome(10, 1), "sidestep": ours})]
    )
    assert name == "scripted (nftables)"
    assert said[-1] == "Sidestep: p99 ms 1.235; 1 were kept and came late; a note"
    assert list(output.remarks([result()])) == []


def test_a_terminal_gets_colours_and_the_same_words() -> None:
    text = printed([result(), skipped(Scripted(), "iptables", "[not] installed")], Terminal())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "scripted" in plain
    assert "[not] installed" in plain
    assert "1 as expected, 1 skipped" in plain


@pytest.mark.parametrize("columns", [70, 80, 100, 130])
def test_a_terminal_shows_names_and_figures_whole(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "pod_recreated_while_kube_proxy_is_away"
    outcomes = {"kube-proxy": outcome(2000, 1200, 300), "sidestep": outcome(2000, 2000)}
    text = printed([judge(Scripted(name=name), "nftables", outcomes)], Terminal())
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= columns
    assert any(name in line and "nftables" in line and "as expected" in line for line in lines)
    assert any("kube-proxy 2,000 1,200 300 500 80,000 ms" in words(line) for line in lines)
    assert any("Sidestep 2,000 2,000 0 0 0 ms" in words(line) for line in lines)


def test_json_is_whole() -> None:
    found = json.loads(json.dumps(output.as_json([result()], MADE_WITH)))
    (one,) = found["results"]
    assert (found["kernel"], found["kube_proxy"]) == ("6.18.0", "kube-proxy v1.36.3 (nftables)")
    assert (one["scenario"], one["mode"], one["verdict"], one["reasons"]) == (
        "scripted",
        "nftables",
        "as expected",
        [],
    )
    counts = one["paths"]["kube-proxy"]
    assert [counts[key] for key in ("sent", "delivered", "misdelivered", "lost", "worst_outage_ms")] == [
        *(2000, 1200, 300, 500, 80000.0)
    ]
    assert sum(counts["timeline"]["delivered"]) == 1200


def test_steps_are_plain_lines_where_nobody_watches() -> None:
    out = io.StringIO()
    with output.progress(out) as say:
        say("one [step]")
    assert out.getvalue() == "one [step]\n"
    terminal = Terminal()
    with output.progress(terminal) as say:
        say("one [step]")
    assert "one [step]" in terminal.getvalue()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("meta", "path", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "rect"):
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    path = report.write(tmp_path / "new" / "directory", [result()], MADE_WITH)
    text = path.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert not [value for name, value in tags.attributes if name in ("src", "href")]
    assert "url(" not in text
    assert "Pods &amp; ports" in text
    assert "&lt;b&gt;nothing" in text
    assert "<b>nothing" not in text
    assert "&lt;zero&gt;" in text
    assert "color-scheme: light dark" in text


def test_a_drawing_shows_each_bin_and_fits_its_frame() -> None:
    root = ElementTree.fromstring(report.drawing(result()))
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    bars = list(root.iter("rect"))
    assert sum(one.attrib["class"] == "delivered" for one in bars) == 1200 + 2000
    assert sum(one.attrib["class"] == "misdelivered" for one in bars) == 300
    for one in bars:
        x, y, w, h = (float(one.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width + 1
        assert 0 <= y <= y + h <= height
    label = root.attrib["aria-label"]
    assert "through kube-proxy: 1200 of 2000 delivered, 300 misdelivered, 500 lost" in label


def test_a_result_without_a_timeline_has_no_drawing() -> None:
    bare = Outcome(sent=1, delivered=1)
    assert report.drawing(judge(Scripted(), "nftables", {"kube-proxy": bare, "sidestep": bare})) == ""
    assert report.drawing(skipped(Scripted(), "nftables", "why")) == ""
