"""Files of conf/ with named entries: a mistake is one line that names the file and the entry."""

import msgspec
import pytest

from pitfalls.results.entries import convert, convert_entries, read_yaml
from pitfalls.schemas import ConfigError


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    n: int


def test_entries_keep_their_names_and_order():
    assert convert_entries("f", {"b": {"n": 1}, "a": {"n": 2}}, Entry) == {"b": Entry(1), "a": Entry(2)}
    assert list(convert_entries("f", {"b": {"n": 1}, "a": {"n": 2}}, Entry)) == ["b", "a"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"good": {"n": 1}, "bad": {"n": "1"}}, r"f: bad: Expected `int`, got `str` - at `\$.n`"),
        ({"good": {"n": 1}, "bad": {"m": 1}}, "f: bad: Object contains unknown field `m`"),
        ({1: {"n": 1}}, "f: Expected `str`, got `int`"),
        (None, "f: Expected `object`, got `null`"),
    ],
)
def test_a_wrong_entry_is_named(data, words):
    """Guards against the path `$[...]`, by which msgspec names an entry of a mapping."""
    with pytest.raises(ConfigError, match=f"^{words}"):
        convert_entries("f", data, Entry)


def test_bad_yaml_is_one_line(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: {\n  b: [\n")
    with pytest.raises(ConfigError, match="^f.yaml: while parsing .* line 3") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {b: 1}\na: {c: 2}\n", "the key a stands twice .*line 2"),
        ("a: {b: 1, b: 2}", "the key b stands twice"),
        ("a: 2026-13-01", "month must be in 1..12"),
        ("a: " + "[" * 3000, "recursion"),
    ],
)
def test_what_yaml_would_take_or_crash_on_is_one_line(tmp_path, text, words):
    """Guards against a second cell of the same name that silently replaces the first one."""
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^f.yaml: .*{words}") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_merged_key_may_be_replaced(tmp_path):
    """Guards against a check that also refuses what the file of sets does on purpose."""
    path = tmp_path / "f.yaml"
    path.write_text("a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  b: 3\n")
    assert read_yaml(path)["d"] == {"b": 3, "c": 2}
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: it cannot be read \(Is a directory\); give another file"):
        read_yaml(tmp_path)


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path):
    path = tmp_path / "f.yaml"
    with pytest.raises(ConfigError, match=r"f.yaml: no such file; give the path of a YAML file$"):
        read_yaml(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="^f.yaml: 'utf-8' codec"):
        read_yaml(path)


def test_a_list_is_converted_as_a_whole():
    assert convert("f", [{"n": 1}], list[Entry]) == [Entry(1)]
    with pytest.raises(ConfigError, match=r"^f: Expected `int`, got `str` - at `\$\[1\].n`"):
        convert("f", [{"n": 1}, {"n": "2"}], list[Entry])
