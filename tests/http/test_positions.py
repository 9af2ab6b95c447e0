"""A dictionary that was trained on some positions of a context: its statistics and evaluations are of those, as PyTorch in float64 has them
(tests/vectors/tiny-gpt2/make_positions.py); what is asked of a position is answered at every one."""
import json
import shutil

import pytest

from conftest import MODEL, VECTORS, run_steerd
from test_eval import evaluations, run_job

FOLDER = VECTORS / MODEL
SOURCE = "1-res-relu"
CORPUS = str(FOLDER / "corpus.txt")
WANT = json.loads((FOLDER / "positions.json").read_text())
CASES = WANT["cases"]


def dictionary(tmp_path, name="dictionary", beside=None, **metadata):
    """A copy of the source whose cfg.json says more: in `metadata`, as SAELens has it now, and beside it."""
    shutil.copytree(FOLDER / "sources" / SOURCE, tmp_path / name)
    path = tmp_path / name / "cfg.json"
    path.chmod(0o644)
    cfg = json.loads(path.read_text())
    cfg["metadata"] |= metadata
    path.write_text(json.dumps(cfg | (beside or {})))
    return tmp_path / name


def serve(start_daemon, folder, **options):
    return start_daemon(models={MODEL: FOLDER / "model"}, sources={f"{MODEL}/{SOURCE}": folder}, **options)


def told(daemon):
    return daemon.get(f"/v1/lab/dictionaries/{MODEL}/{SOURCE}").json()


def count(daemon, lines=False):
    run_job(daemon, {"kind": "stats", "modelId": MODEL, "source": SOURCE, "corpus": CORPUS, "lines": lines})


def close(got, value, slack):
    return abs(got - value) <= slack


@pytest.mark.parametrize("case", sorted(CASES))
def test_as_pytorch_has_it(start_daemon, tmp_path, case):
    want = CASES[case]
    daemon = serve(start_daemon, dictionary(tmp_path, seqpos_slice=want["seqpos_slice"],
                                            exclude_special_tokens=want["exclude_special_tokens"] or False))
    count(daemon, want["lines"])
    whole = told(daemon)
    positions = slice(*want["seqpos_slice"])
    assert whole["seqposSlice"] == [positions.start, positions.stop, positions.step or 1]
    assert whole["excludedTokens"] == want["exclude_special_tokens"]
    assert (whole["statistics"]["nTokens"], whole["statistics"]["conventions"]["documents"]) == (want["tokens"], want["documents"])
    slack = WANT["slack"]
    for f in range(len(want["n_fired"])):
        row = daemon.get(f"/api/feature/{MODEL}/{SOURCE}/{f}").json()
        # A feature nearer to its threshold than float32 may be off fires or not, and its value there is no larger than that.
        assert close(row["n_fired"], want["n_fired"][f], want["near"][f]), f
        # decoder_norm: the slack is that of raw values; the mean of so many is nearer than any of them.
        assert close(row["maxActApprox"], want["max"][f], 2 * slack * row["decoder_norm"] + 1e-6 * want["max"][f]), f
        if row["n_fired"] and not want["near"][f]:
            assert close(row["mean"], want["sum"][f] / want["n_fired"][f], 2 * slack * row["decoder_norm"]), f


@pytest.mark.parametrize("case", sorted(CASES))
def test_evaluations_as_pytorch_has_them(start_daemon, tmp_path, case):
    want = CASES[case]
    daemon = serve(start_daemon, dictionary(tmp_path, seqpos_slice=want["seqpos_slice"],
                                            exclude_special_tokens=want["exclude_special_tokens"] or False))
    run_job(daemon, {"source": SOURCE, "corpus": CORPUS, "lines": want["lines"]})
    got = evaluations(daemon, SOURCE)[0]
    ce, kl = got["crossEntropy"], got["klDivergence"]
    assert (got["documents"], got["tokens"], ce["tokens"]) == (want["documents"], want["tokens"], want["predicted"])
    # Tolerances as in test_eval.py, whose figures these are.
    assert got["l0"] == pytest.approx(want["l0"], rel=1e-3) and got["mse"] == pytest.approx(want["mse"], rel=1e-3)
    assert got["explainedVariance"] == pytest.approx(want["explained"], abs=1e-3)
    for mine, theirs in (("raw", "raw"), ("spliced", "spliced"), ("zero", "zero"), ("withError", "raw")):
        assert ce[mine] == pytest.approx(want[theirs], abs=1e-3), mine
    assert kl["spliced"] == pytest.approx(want["kl_spliced"], abs=2e-3) and kl["zero"] == pytest.approx(want["kl_zero"], abs=2e-3)


def test_examples_are_of_counted_positions(start_daemon, tmp_path):
    """What is shown around them has no values where the dictionary is not read."""
    want = CASES["tokens"]
    daemon = serve(start_daemon, dictionary(tmp_path, beside={"seqpos_slice": want["seqpos_slice"],  # as before version 6
                                                              "exclude_special_tokens": want["exclude_special_tokens"]}))
    count(daemon, True)
    vocabulary = json.loads((FOLDER / "model" / "vocab.json").read_text())
    texts = {text.replace("\u0120", " ") for text, number in vocabulary.items() if number in want["exclude_special_tokens"]}
    assert len(texts) == 6 and all(text.isascii() for text in texts)  # bytes of their own, but for the blank
    seen = shown = 0
    for f in range(0, len(want["n_fired"]), 7):
        for example in daemon.get(f"/api/feature/{MODEL}/{SOURCE}/{f}").json()["activations"]:
            seen += 1
            for token, value in zip(example["tokens"], example["values"]):
                shown += token in texts
                assert token not in texts or value == 0, (f, token, value)
    assert seen > 50 and shown > 50


def test_true_is_what_the_tokenizer_has(start_daemon, tmp_path):
    daemon = serve(start_daemon, dictionary(tmp_path, exclude_special_tokens=True))
    whole = told(daemon)
    assert whole["seqposSlice"] is None and whole["excludedTokens"] == [511]
    [row] = daemon.get("/models").json()["models"][0]["sources"]
    assert row["seqposSlice"] is None and row["excludedTokens"] == [511]


def test_answers_are_of_every_position(start_daemon, tmp_path):
    text = {"source": SOURCE, "text": "The old stone bridge over the river", "modelId": MODEL}
    plain, narrow = [serve(start_daemon, dictionary(tmp_path, name, **more)).post("/activations", text).json()
                     for name, more in (("plain", {}), ("narrow", {"seqpos_slice": [5, -5], "exclude_special_tokens": True}))]
    assert plain == narrow


def test_statistics_of_other_positions_are_dropped(start_daemon, tmp_path):
    store = str(tmp_path / "store.sqlite")
    plain, narrow = dictionary(tmp_path, "plain"), dictionary(tmp_path, "narrow", seqpos_slice=[5, -5])
    daemon = serve(start_daemon, plain, store=store)
    count(daemon)
    assert told(daemon)["statistics"]["nTokens"] > CASES["ends"]["tokens"]
    daemon.finish()
    daemon = serve(start_daemon, narrow, store=store)
    assert not told(daemon)["statistics"]["nTokens"]
    count(daemon)
    assert told(daemon)["statistics"]["nTokens"] == CASES["ends"]["tokens"]
    daemon.finish()
    assert told(serve(start_daemon, narrow, store=store))["statistics"]["nTokens"] == CASES["ends"]["tokens"]


@pytest.mark.parametrize("kind", ["stats", "eval"])
def test_a_text_without_a_counted_position_is_refused(tmp_path, kind):
    (tmp_path / "short.txt").write_text("a\nb\nab\n")
    status, _, err = run_steerd(kind, MODEL, SOURCE, "--corpus", str(tmp_path / "short.txt"), "--lines", "--store", str(tmp_path / "store"),
                                "--model", f"{MODEL}={FOLDER / 'model'}", "--source",
                                f"{MODEL}/{SOURCE}={dictionary(tmp_path, seqpos_slice=[5, -5])}")
    assert status != 0 and "short.txt' has no position on which '1-res-relu' is read" in err, err


@pytest.mark.parametrize("more, words", [
    ({"seqpos_slice": [1, 5, 0]}, "the step of 'seqpos_slice' is 0"),
    ({"seqpos_slice": [100, 20]}, "'seqpos_slice' leaves no position of a context of context_size 128"),
    ({"exclude_special_tokens": [3, "<pad>"]}, "element 1 of 'exclude_special_tokens' is a string, expected a token id")])
def test_refusals_name_file_and_field(start_daemon, tmp_path, more, words):
    daemon = start_daemon(source_folders=tmp_path)
    folder = dictionary(tmp_path, **more)
    answer = daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-narrow", "path": str(folder)})
    assert answer.status_code == 400 and words in answer.json()["error"] and "cfg.json" in answer.json()["error"], answer.text
