"""The command line's verbs for long work: flags that nobody knows, and how values are given."""
import pytest

from conftest import run_steerd

WANTED = ["demo", "2-res-demo", "--corpus", "/nonexistent/text"]


@pytest.mark.parametrize("verb, flags, words", [
    ("stats", ["--corpsu", "x"], "did you mean '--corpus'?"),
    ("stats", ["--windw", "8"], "did you mean '--window'?"),
    ("stats", ["--no-explian"], "did you mean '--no-explain'?"),
    ("stats", ["--stroe", "x"], "did you mean '--store'?"),
    ("eval", ["--end"], "did you mean '--ends'?"),
    ("eval", ["--window", "8"], "unknown flag '--window'; steerd help eval lists them"),
    ("stats", ["--lines=yes"], "--lines takes no value, found 'yes'"),
    ("stats", ["--top=101"], "--top: '101' is not a whole number from 0 to 100"),
    ("stats", ["--max-tokens", "some"], "--max-tokens: 'some' is not a whole number of 0 or more"),
])
def test_flags_are_refused(verb, flags, words):
    status, out, err = run_steerd(verb, *WANTED, *flags)
    assert status == 2 and words in err and len(err.splitlines()) == 1 and not out, err


@pytest.mark.parametrize("flags", [["--max-tokens=5", "--top=3"], ["--max-tokens", "5", "--top", "3"]])
def test_values_stand_behind_a_flag_or_in_it(flags, tmp_path):
    status, _, err = run_steerd("stats", *WANTED[:2], "--corpus=/nonexistent/text", f"--store={tmp_path / 's.sqlite'}", *flags)
    assert status == 1 and "corpus '/nonexistent/text' is not a file that can be read" in err, err
