"""Every op at every point that allows it, beside the twin in NumPy; edits of scores and patterns; means over other texts."""
import json

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from test_lab_run import post, refused
from twin import agrees
from twin_points import PointTwin

QWEN = VECTORS / "families" / "qwen3"
IDS = {"gpt2": [511, 73, 12, 300, 45, 299, 8, 73, 12, 41], "qwen3": [1, 40, 17, 88, 5, 5, 60, 23, 9]}
rng = np.random.default_rng(11)


@pytest.fixture(scope="module")
def twins():
    return {"gpt2": PointTwin(VECTORS / MODEL / "model"), "qwen3": PointTwin(QWEN)}


@pytest.fixture(scope="module")
def daemons(daemon, tmp_path_factory):
    """Qwen3's tiny weights with a tokenizer that is just there: requests give tokens."""
    from conftest import Daemon
    folder = tmp_path_factory.mktemp("qwen3")
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(QWEN / name)
    vocabulary = {chr(33 + i): i for i in range(97 - 3)} | {f"{a}!": 94 + i for i, a in enumerate("abc")}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na !\nb !\nc !\n")
    other = Daemon(["--model", f"qwen3={folder}"])
    yield {"gpt2": daemon, "qwen3": other}
    other.finish()


def run(daemon, ids, edits=(), **more):
    return post(daemon, "/v1/lab/run", {"tokens": list(ids), "edits": list(edits), "loss": True, **more})


def logits_of(daemon, ids, edits):
    got = run(daemon, ids, edits, points=["unembed.hook_out"])
    return np.array(got["activations"]["unembed.hook_out"], np.float32)


def kind(points, name):
    rows = points[name]
    if name.endswith(("hook_attn_scores", "hook_pattern")):
        return "square"
    return "heads" if rows.ndim == 3 else "rows"


def names_of(twin, ids):
    points, _ = twin.run(ids)
    return points, [name for name in points if name != "blocks.0.hook_attn_in"]


# ---- the twin itself, and every point -------------------------------------------------------------------


@pytest.mark.parametrize("family", IDS)
def test_every_point_agrees(daemons, twins, family):
    points, names = names_of(twins[family], IDS[family])
    got = run(daemons[family], IDS[family], points=names)["activations"]
    for name in names:
        want, have = points[name], np.array(got[name], np.float32)
        if name.endswith("hook_attn_scores"):
            assert (np.isnan(have) == np.isinf(want)).all()
            have, want = np.nan_to_num(have), np.where(np.isinf(want), 0, want)
        agrees(have.reshape(want.shape), want)


# ---- every op at every point ----------------------------------------------------------------------------

ROWS = [1, 4, 5]  # positions that are edited


def at_rows(function):
    def edit(h):
        h[ROWS] = function(h[ROWS])
        return h
    return edit


def ops_for(shape, other):
    """{op: (the edit's fields, the function)} for rows of this shape; other: rows of another run."""
    vector = rng.normal(size=int(np.prod(shape))).round(3)
    flat, unit = vector.reshape(shape), (vector / np.linalg.norm(vector)).reshape(shape)
    axes = tuple(range(1, 1 + len(shape)))
    along = lambda h: (h * unit).sum(axes, keepdims=True)
    return {
        "add": ({"vector": vector.tolist(), "strength": 0.5}, lambda h: h + 0.5 * flat),
        "add a number": ({"op": "add", "value": 0.25, "strength": 2}, lambda h: h + 0.5),
        "set": ({"vector": vector.tolist()}, lambda h: 0 * h + flat),
        "set a number": ({"op": "set", "value": 0.75}, lambda h: 0 * h + 0.75),
        "scale": ({"value": 0.5}, lambda h: 0.5 * h),
        "zero": ({}, lambda h: 0 * h),
        "project": ({"vector": vector.tolist(), "strength": 0.25}, lambda h: h - 0.75 * along(h) * unit),
        "cap": ({"vector": vector.tolist(), "strength": 0.1}, lambda h: h + (np.minimum(along(h), 0.1) - along(h)) * unit),
        "mean": ({}, None),
        "patch": ({"rows": other.reshape(len(ROWS), -1).tolist()}, lambda h: 0 * h + other),
    }


def cases(twin, ids):
    points, names = names_of(twin, ids)
    last = {twin.n_layer - 1}  # one layer of each is enough, the middle one where there are three
    for name in names:
        if name.startswith("blocks.") and int(name.split(".")[1]) not in {min(1, twin.n_layer - 1)} and name.split(".")[1] not in map(str, last):
            continue
        yield name, points


def too_hard(name, op):
    """A divisor near or at zero says nothing about an implementation."""
    return name.endswith("hook_scale") and op in ("zero", "set", "project", "cap", "add", "patch")


@pytest.mark.parametrize("family", IDS)
def test_every_op_at_every_point(daemons, twins, family):
    twin, daemon, ids, done = twins[family], daemons[family], IDS[family], 0
    others = rng.integers(3, 90, len(ids)).tolist()
    theirs, _ = twin.run(others)
    derived = ("hook_result", "hook_q_input", "hook_k_input", "hook_v_input")
    for name, points in list(cases(twin, ids)):
        form, clean = kind(points, name), points[name]
        if form == "square":
            continue
        shape = clean.shape[1:]
        for op, (fields, function) in ops_for(shape, theirs[name][ROWS].astype(np.float32)).items():
            if too_hard(name, op):
                continue
            if op in ("project", "cap") and name.endswith(derived):
                edit = {"op": op, "point": name, "positions": ROWS, **fields}
                refused(daemon, "/v1/lab/next", {"tokens": ids, "edits": [edit]}, "edits[0].point", "one head")
                continue
            function = function or (lambda h: 0 * h + clean.mean(0))
            edit = {"op": op, "point": name, "positions": ROWS, **fields}
            got = logits_of(daemon, ids, [edit])
            try:
                agrees(got, twin.run(ids, {name: at_rows(function)})[1])
            except AssertionError as e:
                raise AssertionError(f"{op} at {name}: {e}") from None
            done += 1
    assert done > 150


@pytest.mark.parametrize("family", IDS)
def test_every_op_at_one_head_of_every_point_with_heads(daemons, twins, family):
    twin, daemon, ids, done = twins[family], daemons[family], IDS[family], 0
    theirs, _ = twin.run(rng.integers(3, 90, len(ids)).tolist())
    for name, points in list(cases(twin, ids)):
        if kind(points, name) != "heads":
            continue
        clean = points[name]
        for op, (fields, function) in ops_for(clean.shape[2:], theirs[name][ROWS][:, 1].astype(np.float32)).items():
            if too_hard(name, op):
                continue
            function = function or (lambda h: 0 * h + clean[:, 1].mean(0))

            def head(h):
                h[ROWS, 1] = function(h[ROWS, 1])
                return h
            got = logits_of(daemon, ids, [{"op": op, "point": name, "heads": [1], "positions": ROWS, **fields}])
            try:
                agrees(got, twin.run(ids, {name: head})[1])
            except AssertionError as e:
                raise AssertionError(f"{op} at {name}: {e}") from None
            done += 1
    assert done > 40


# ---- scores and patterns --------------------------------------------------------------------------------


def square_ops(n_columns, other):
    vector = rng.normal(size=n_columns).round(3)
    return {"add": ({"vector": vector.tolist(), "strength": 0.5}, lambda h: h + 0.5 * vector),
            "add a number": ({"op": "add", "value": 1.5}, lambda h: h + 1.5),
            "set": ({"vector": vector.tolist()}, lambda h: np.broadcast_to(vector, h.shape).copy()),
            "set a number": ({"op": "set", "value": 0.25}, lambda h: np.full_like(h, 0.25)),
            "scale": ({"value": 0.5}, lambda h: 0.5 * h),
            "zero": ({}, lambda h: np.zeros_like(h)),
            "knockout": ({}, lambda h: np.full_like(h, -np.inf)),
            "patch": ({"rows": other.reshape(len(other), -1).tolist()}, lambda h: other.reshape(h.shape))}


@pytest.mark.parametrize("heads, queries, keys", [([2], [6], [1]), ([0, 3], [5, -1], [0, 2, 3]), (None, [3, 7], [-1, 1])])
@pytest.mark.parametrize("point", ["hook_attn_scores", "hook_pattern"])
@pytest.mark.parametrize("family", IDS)
def test_scores_and_patterns_by_head_query_and_key(daemons, twins, family, point, heads, queries, keys):
    twin, daemon, ids = twins[family], daemons[family], IDS[family]
    name, n = f"blocks.1.attn.{point}", len(ids)
    h = sorted(heads or range(twin.heads))
    q, k = sorted(x % n for x in queries), sorted(x % n for x in keys)
    other = rng.normal(size=(len(q), len(h) * len(k))).round(3).astype(np.float32)
    for op, (fields, function) in square_ops(len(h) * len(k), other).items():
        if op == "knockout" and point == "hook_pattern":
            continue

        def edit(rows):
            part = rows[np.ix_(q, h, k)]
            with np.errstate(invalid="ignore"):  # what is hidden stays hidden
                rows[np.ix_(q, h, k)] = function(part.reshape(len(q), -1)).reshape(part.shape)
            return rows
        asked = {"op": op, "point": name, "positions": queries, "keys": keys, **fields, **({"heads": heads} if heads else {})}
        got = run(daemon, ids, [asked], points=["unembed.hook_out", name, "blocks.1.attn.hook_pattern"])["activations"]
        points, logits = twin.run(ids, {name: edit})
        try:
            agrees(np.array(got["unembed.hook_out"], np.float32), logits)
            agrees(np.array(got["blocks.1.attn.hook_pattern"], np.float32), points["blocks.1.attn.hook_pattern"])
        except AssertionError as e:
            raise AssertionError(f"{op}: {e}") from None


def test_attention_knockout(daemons, twins):
    """The classic: what the last token may not see is nothing to it, and the rest of its attention adds up to 1."""
    daemon, twin, ids = daemons["gpt2"], twins["gpt2"], IDS["gpt2"]
    edits = [{"op": "knockout", "point": f"attn_scores.{i}", "positions": [-1], "keys": [3]} for i in range(3)]
    got = run(daemon, ids, edits, points=["pattern.*"])["activations"]
    for name, rows in got.items():
        rows = np.array(rows)
        assert (rows[-1, :, 3] == 0).all() and np.allclose(rows[-1].sum(-1), 1, atol=1e-5)
    # With every path from token 3 to the last one cut, and its neighbours' too, it is as if it were another token.
    cut = [{"op": "knockout", "point": f"attn_scores.{i}", "positions": list(range(4, len(ids))), "keys": [3]} for i in range(3)]
    swapped = [*ids[:3], ids[3] + 1, *ids[4:]]
    last = {"positions": [-1], "topK": 5}
    assert run(daemon, ids, cut, **last)["top"] == run(daemon, swapped, cut, **last)["top"]
    assert run(daemon, ids, **last)["top"] != run(daemon, swapped, **last)["top"]
    alone = run(daemon, ids, [{"op": "knockout", "point": "attn_scores.1", "positions": [2], "keys": [0, 1, 2]}], points=["z.1"])
    assert (np.array(alone["activations"]["blocks.1.attn.hook_z"])[2] == 0).all()  # it sees nothing at all


def test_patterns_are_patched_from_another_run(daemons, twins):
    daemon, twin, ids = daemons["gpt2"], twins["gpt2"], IDS["gpt2"]
    other = rng.integers(3, 500, len(ids) + 3).tolist()
    theirs, _ = twin.run(other)
    for point in ("hook_pattern", "hook_attn_scores"):
        name = f"blocks.1.attn.{point}"
        rows, same = theirs[name][:len(ids), :, :len(ids)], twin.run(other[:len(ids)])[0][name]
        for edit, function in [
            ({"from": {"tokens": other[:len(ids)]}}, lambda h: same),
            ({"from": {"tokens": other[:len(ids)]}, "heads": [1, 2]}, lambda h: np.concatenate([h[:, :1], same[:, 1:3], h[:, 3:]], 1)),
            ({"from": {"tokens": other}, "positions": [8], "keys": [2, 3, 4]},
             lambda h: np.concatenate([h[:8], np.concatenate([h[8:9, :, :2], rows[8:9, :, 2:5], h[8:9, :, 5:]], 2), h[9:]]))]:
            got = logits_of(daemon, ids, [{"op": "patch", "point": name, **edit}])
            agrees(got, twin.run(ids, {name: function})[1])
    refused(daemon, "/v1/lab/next", {"tokens": ids, "edits": [{"op": "patch", "point": "pattern.1", "from": {"tokens": other}}]},
            "edits[0].keys", "name keys")


@pytest.mark.parametrize("edit, field, word", [
    ({"op": "knockout", "point": "pattern.1"}, "edits[0].point", "attn_scores"),
    ({"op": "knockout", "point": "resid_pre.1"}, "edits[0].point", "attn_scores"),
    ({"op": "zero", "point": "z.1", "keys": [1]}, "edits[0].keys", "no keys"),
    ({"op": "zero", "point": "pattern.1", "keys": [1, 44]}, "edits[0].keys", "position 44"),
    ({"op": "zero", "point": "pattern.1", "keys": [1, -9]}, "edits[0].keys", "twice"),
    ({"op": "zero", "point": "pattern.1", "heads": [1, 4]}, "edits[0].heads", "no head 4"),
    ({"op": "zero", "point": "z.1", "heads": []}, "edits[0].heads", "array of 1 to 4096"),
    ({"op": "zero", "point": "pattern.1", "keys": []}, "edits[0].keys", "at least 1"),
    ({"op": "zero", "point": "z.1", "positions": []}, "edits[0].positions", "at least 1"),
    ({"op": "project", "point": "pattern.1", "vector": [1], "strength": 1}, "edits[0].op", "knockout"),
    ({"op": "mean", "point": "pattern.1"}, "edits[0].perPosition", "by itself"),
    ({"op": "set", "point": "pattern.1", "keys": [1], "vector": [1, 2, 3]}, "edits[0].vector", "expected 4"),
    ({"op": "set", "point": "pattern.1", "keys": [1], "vector": [1] * 4, "value": 2}, "edits[0].value", "leave one"),
    ({"op": "set", "point": "resid_pre.1"}, "edits[0].vector", "or a value"),
    ({"op": "add", "source": "1-res-relu", "index": 3, "value": 2}, "edits[0].value", "strength"),
    ({"op": "mean", "point": "z.1", "over": "corpus"}, "edits[0].texts", "array of strings"),
    ({"op": "mean", "point": "z.1", "over": "batch", "texts": ["a"]}, "edits[0].texts", "corpus"),
    ({"op": "mean", "point": "z.1", "perPosition": True}, "edits[0].perPosition", "several texts"),
    ({"op": "mean", "point": "z.1", "texts": ["a"], "perPosition": True}, "edits[0].texts[0]", "as many"),
    ({"op": "mean", "point": "z.1", "texts": ["a"], "from": {"text": "b"}}, "edits[0].from", "leave"),
    ({"op": "mean", "source": "1-res-relu", "index": 3, "texts": ["a"], "perPosition": True}, "edits[0].perPosition", "feature"),
    ({"op": "mean", "source": "1-res-relu", "index": 3, "over": "corpus"}, "edits[0].texts", "statistics"),
    ({"op": "zero", "point": "z.1", "texts": ["a"]}, "edits[0].texts", "no meaning"),
    ({"op": "zero", "point": "z.*"}, "edits[0].point", "takes one point"),
    ({"op": "patch", "point": "z.1", "from": {}}, "edits[0].from.text", "is required"),
    ({"op": "patch", "point": "z.1", "from": {"text": "a", "tokens": [1]}}, "edits[0].from.text", "are both given"),
    ({"op": "patch", "point": "z.1", "from": {"text": "a", "edits": [{"op": "patch", "point": "z.0", "from": {"text": "b"}}]}},
     "edits[0].from.edits[0].from", "further run"),
    ({"op": "mean", "point": "z.1", "texts": [5]}, "edits[0].texts[0]", "must be a string of"),
])
def test_what_cannot_be_done_is_said(daemon, edit, field, word):
    refused(daemon, "/v1/lab/next", {"tokens": IDS["gpt2"], "edits": [edit]}, field, word)


def test_scores_have_a_column_for_each_token(daemon):
    """A text that goes on would add one with each token: only rows of the prompt are edited then. And columns make pieces, which are counted."""
    edit = {"op": "knockout", "point": "attn_scores.1", "keys": [0]}
    body = {"prompt": "One night", "features": [], "temperature": 0, "n_tokens": 3}
    refused(daemon, "/api/steer", {**body, "edits": [edit]}, "edits[0].positions", 'say positions: "prompt"')
    post(daemon, "/api/steer", {**body, "edits": [{**edit, "positions": "prompt"}]})
    many = [{**edit, "keys": list(range(0, 160, 2)), "heads": [0, 1, 2, 3]}] * 256
    refused(daemon, "/v1/lab/run", {"tokens": [511] * 160, "edits": many, "loss": True}, "edits[204]", "65536 pieces")


# ---- means over other texts -----------------------------------------------------------------------------

TEXTS = ["One night a ship came near the rocks", "The ship turned towards the light, and", "Late in the year the wind was"]


def test_a_mean_over_a_corpus(daemon, twins):
    twin = twins["gpt2"]
    ids = run(daemon, IDS["gpt2"])["ids"]
    corpus = [r["ids"] for r in post(daemon, "/v1/lab/run", {"text": TEXTS, "loss": True})["results"]]
    mean = np.concatenate([twin.run(c)[0]["blocks.1.attn.hook_z"] for c in corpus]).mean(0)

    def put(h):
        h[:, 2] = mean[2]
        return h
    want = twin.run(ids, {"blocks.1.attn.hook_z": put})[1]
    edit = {"op": "mean", "point": "z.1", "heads": [2], "texts": TEXTS}
    agrees(logits_of(daemon, ids, [edit]), want)
    assert (logits_of(daemon, ids, [edit]) == logits_of(daemon, ids, [{**edit, "over": "corpus"}])).all()
    bare = np.concatenate([twin.run(c)[0]["blocks.1.attn.hook_z"][1:] for c in corpus]).mean(0)

    def leave_bos(h):
        h[1:, 2] = bare[2]
        return h
    agrees(logits_of(daemon, ids, [{**edit, "special": False}]), twin.run(ids, {"blocks.1.attn.hook_z": leave_bos})[1])


def test_a_mean_of_each_position_by_itself(daemon, twins):
    """As papers on circuits ablate: the mean over prompts of one template, position by position."""
    twin = twins["gpt2"]
    texts = [" ".join(t.split()[:4]) for t in TEXTS]
    corpus = [r["ids"] for r in post(daemon, "/v1/lab/run", {"text": texts, "loss": True})["results"]]
    n = min(map(len, corpus))
    same = [c for c in corpus if len(c) == n]
    texts = [t for t, c in zip(texts, corpus) if len(c) == n]
    ids = [511, *rng.integers(0, 500, n - 1).tolist()]
    batch = [ids, *(([511, *rng.integers(0, 500, n - 1).tolist()]) for _ in range(3))]
    for point in ("hook_z", "hook_pattern", "hook_attn_scores"):
        name = f"blocks.1.attn.{point}"
        with np.errstate(invalid="ignore"):
            mean = np.mean([twin.run(c)[0][name] for c in same], 0)
            over = np.mean([twin.run(c)[0][name] for c in batch], 0)

        def put(h, mean=mean):
            h[:, [0, 3]] = mean[:, [0, 3]]
            return h
        edit = {"op": "mean", "point": name, "heads": [0, 3], "perPosition": True}
        agrees(logits_of(daemon, ids, [{**edit, "texts": texts}]), twin.run(ids, {name: put})[1])
        got = post(daemon, "/v1/lab/run", {"tokens": batch, "edits": [{**edit, "over": "batch"}], "points": ["lm_head"]})["results"]
        for one, result in zip(batch, got):
            agrees(np.array(result["activations"]["unembed.hook_out"], np.float32),
                   twin.run(one, {name: lambda h: put(h, over)})[1])
    refused(daemon, "/v1/lab/run", {"tokens": [ids, ids + [3]], "edits": [{**edit, "over": "batch"}], "loss": True},
            "edits[0].perPosition", "differ in length")


def test_many_edits_share_the_runs_that_they_take_from(start_daemon):
    """Ten heads put to their mean over three texts cost three runs, not thirty."""
    daemon = start_daemon()
    tokens = lambda: int(next(l for l in daemon.get("/metrics").text.splitlines() if l.startswith("steerd_prompt_tokens_total")).split()[1])
    edits = [{"op": "mean", "point": f"z.{i % 3}", "heads": [i // 3 % 4], "texts": TEXTS} for i in range(10)]
    before = tokens()
    post(daemon, "/v1/lab/next", {"text": TEXTS[0], "edits": edits})
    one = tokens() - before
    post(daemon, "/v1/lab/next", {"text": TEXTS[0], "edits": edits[:1]})
    assert one == tokens() - before - one


# ---- their names ----------------------------------------------------------------------------------------


def test_points_are_listed(daemons):
    for family, daemon in daemons.items():
        got = daemon.get("/v1/lab/points").json()
        names = {p["name"]: p for p in got["points"]}
        missing = {p["name"]: p["missing"] for p in got["missing"]}
        assert names["blocks.N.hook_resid_pre"]["shape"] == ["positions", 48 if family == "gpt2" else 30]
        assert names["blocks.N.attn.hook_pattern"]["shape"] == ["positions", 4 if family == "gpt2" else 6, "positions"]
        assert "z.N" in names["blocks.N.attn.hook_z"]["spellings"] and names["blocks.N.attn.hook_z"]["kind"] == "hot"
        assert ("blocks.N.attn.hook_rot_q" in missing) == (family == "gpt2")
        assert names["blocks.N.hook_q_input"]["fixed"] is None
        assert bool(names["blocks.N.hook_attn_in"]["fixed"]) == (family == "qwen3")  # its heads share keys
        points = [name.replace("N", "0") for name in names]
        assert len(run(daemon, IDS[family], points=points)["activations"]) == len(points)
        for point in names.values():  # every spelling means that point
            for name in point["spellings"]:
                got = run(daemon, IDS[family], points=[name.replace(".N", ".0")])["activations"]
                assert list(got) == [point["name"].replace(".N", ".0")], (name, got.keys())
        assert "attn_out.N" in names["blocks.N.hook_attn_out"]["spellings"] and "attn_out.N" not in missing
        page = daemon.get("/docs/points")
        assert page.status_code == 200 and "blocks.N.attn.hook_pattern" in page.text
        assert ("its positions are not rotary" if family == "gpt2" else "its positions are not learned") in page.text
        if family == "qwen3":
            patch = {"clean": {"tokens": IDS[family]}, "corrupted": {"tokens": IDS[family]}, "point": "hook_attn_in"}
            refused(daemon, "/v1/lab/patch", {**patch, "answers": ["a", "b"], "prependSpace": False}, "point", "share")
        assert "/docs/points" in daemon.get("/docs").text


def test_unknown_points_lead_somewhere(daemon):
    for name, word in (("logits", "'unembed.hook_out'"), ("hook_mlp_post", "'blocks.N.mlp.hook_post'"), ("resid.2", "'resid_post.2'"),
                       ("attn.pattern", "'blocks.N.attn.hook_pattern'"), ("bananas", "/docs/points")):
        refused(daemon, "/v1/lab/run", {"tokens": [1, 2], "points": [name]}, "points[0]", word)
        refused(daemon, "/v1/lab/next", {"tokens": [1, 2], "edits": [{"op": "zero", "point": name}]}, "edits[0].point", word)
    assert daemon.get("/docs/points").status_code == 200
    refused(daemon, "/v1/lab/next", {"tokens": [1, 2], "edits": ["zero"]}, "edits[0]", '{"op": "zero", "point"')
    refused(daemon, "/v1/lab/next", {"tokens": [1, 2], "edits": {"op": "zero"}}, "edits", 'such as [{"op"')
