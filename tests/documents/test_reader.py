"""A stream of YAML documents; what one document has wrong is tried with the settings."""

import pytest

from proxy.documents import reader
from proxy.documents.reader import Reading, SettingsError


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Reading("f").stream(text)
    return str(caught.value)


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def scanner(request, monkeypatch):
    """Both ways to scan, so that neither depends on what is installed."""
    if request.param == "python":
        monkeypatch.setattr(reader, "_StreamLoader", reader._Loader)
    elif reader._StreamLoader is reader._Loader:
        pytest.skip("PyYAML has no libyaml here")


def test_it_gives_the_root_of_each_document_with_its_place():
    nodes = Reading("f").stream("a: 1\n---\n# none\n---\n- é\n- x\n...\n")
    assert [node.start_mark.line for node in nodes] == [0, 3, 4]
    assert [(item.value, item.start_mark.column) for item in nodes[2].value] == [("é", 2), ("x", 2)]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_it_takes_a_stream_without_documents(text):
    assert Reading("f").stream(text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n---\nb: *x", "f:3:4: (file): YAML: found undefined alias 'x'"),
        ("é: \x01", "f:1:4: (file): found the character U+0001, which YAML doesn't allow"),
        ("---\n" + "[" * 30, "f:2:21: (file): YAML: nested more than 20 deep"),
        ("\ta: 1", "f:1:1: (file): YAML: while scanning for the next token; found character"),
        ('"\\UFFFFFFFF"', "f:1:4: (file): YAML: "),
        ("a: b: c", "f:1:5: (file): YAML: mapping values are not allowed"),
    ],
)
def test_it_says_where_a_stream_is_no_yaml(text, said):
    assert problem(text).startswith(said)


def test_it_does_not_let_chains_of_merge_keys_grow():
    text = "- &m0 {k0: 0}\n" + "".join(f"- &m{n} {{<<: *m{n - 1}, k{n}: 0}}\n" for n in range(1, 1000))
    reading = Reading("f")
    (root,) = reading.stream(text)
    for node in root.value[:200]:
        reading.entries(node, "")
    with pytest.raises(SettingsError, match="merge keys bring more than 50000 keys"):
        [reading.entries(node, "") for node in root.value]
