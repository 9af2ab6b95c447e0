"""Sources that come and go in a running daemon: POST, DELETE and GET /v1/sources over HTTP."""
import shutil
import threading

from conftest import MODEL, VECTORS, model_options

RELU = {"source": "1-res-relu", "path": str(VECTORS / MODEL / "sources" / "1-res-relu")}
ASK = {"source": "1-res-relu", "text": "hello there, everybody"}
TURNS = 15


def states(daemon):
    return {row["source"]: row["state"] for row in daemon.get("/v1/sources").json()["sources"]}


def test_unloaded_and_loaded_again(start_daemon):
    daemon = start_daemon()
    before = daemon.post("/activations", ASK)
    assert before.status_code == 200
    assert states(daemon)["1-res-relu"] == "ready"
    gone = daemon.client.delete(f"/v1/sources/{MODEL}/1-res-relu")
    assert gone.status_code == 200 and gone.json()["state"] == "unloading"
    missing = daemon.post("/activations", ASK)
    assert missing.status_code == 404 and missing.json()["code"] == "not_found"
    assert daemon.get(f"/{MODEL}/1-res-relu").status_code == 404
    back = daemon.post("/v1/sources", RELU)
    assert back.status_code == 201, back.text
    assert back.json()["features"] == 96 and back.json()["state"] == "ready"
    assert daemon.post("/activations", ASK).json() == before.json()
    assert daemon.post("/v1/sources", RELU).status_code == 409
    unplaced = daemon.post("/v1/sources", {k: v for k, v in RELU.items() if k != "path"})
    assert unplaced.status_code == 409 and "loaded already" in unplaced.json()["error"]


def test_a_name_tells_no_other_layer(daemon):
    """RELU reads what layer 1 begins with, which is what layer 0 ends with."""
    for name in ("2-mine", "3-res-relu"):
        reply = daemon.post("/v1/sources", {**RELU, "source": name})
        assert reply.status_code == 400 and reply.json()["field"] == "source", reply.text
        assert "the dictionary is of layer 1" in reply.json()["error"] and f"call it '1-{name[2:]}'" in reply.json()["error"], reply.text
        assert name not in states(daemon)
    for name in ("1-mine", "0-mine", "mine", "9mine"):
        assert daemon.post("/v1/sources", {**RELU, "source": name}).status_code == 201, name
        assert daemon.client.delete(f"/v1/sources/{MODEL}/{name}").status_code == 200


def test_a_folder_of_the_settings(start_daemon, tmp_path):
    shutil.copytree(RELU["path"], tmp_path / "saes" / "new")
    shutil.copytree(RELU["path"], tmp_path / "elsewhere")
    (tmp_path / "saes" / "link").symlink_to(tmp_path / "elsewhere")
    daemon = start_daemon(model_options()[:2], source_folders=str(tmp_path / "saes"))
    assert states(daemon) == {}
    for path in (tmp_path / "elsewhere", "../elsewhere", "link", "nothing", "/etc"):
        answer = daemon.post("/v1/sources", {"source": "1-new", "path": str(path)})
        assert answer.status_code == 400 and answer.json()["field"] == "path", answer.text
        assert "in none of the folders" in answer.json()["error"]
    assert daemon.post("/v1/sources", {"source": "1-new", "path": "new"}).status_code == 201
    assert daemon.post("/v1/sources", {"source": "1-new2", "path": str(tmp_path / "saes" / "new")}).status_code == 201
    assert states(daemon) == {"1-new": "ready", "1-new2": "ready"}


def test_paths_are_resolved_and_told_to_the_owner_alone(start_daemon):
    roundabout = str(VECTORS / MODEL) + "/../" + MODEL + "/sources/./1-res-relu"
    daemon = start_daemon(model_options()[:2] + ["--source", f"{MODEL}/1-res-relu={roundabout}"])
    assert [row["path"] for row in daemon.get("/v1/sources").json()["sources"]] == [RELU["path"]]


def test_requests_while_a_source_comes_and_goes(start_daemon):
    daemon = start_daemon()
    whole = daemon.post("/activations", ASK).json()
    over, seen, wrong = threading.Event(), [], []

    def ask():
        while not over.is_set():
            answer = daemon.post("/activations", ASK)
            seen.append(answer.status_code)
            if answer.status_code != 404 and (answer.status_code != 200 or answer.json() != whole):
                wrong.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(TURNS):
        assert daemon.client.delete(f"/v1/sources/{MODEL}/1-res-relu").status_code == 200
        assert daemon.post("/v1/sources", RELU).status_code == 201
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong and seen
    assert "unloading" not in states(daemon).values() or states(daemon)["1-res-relu"] == "ready"


def metric(daemon, name):
    return float(next(line for line in daemon.get("/metrics").text.splitlines() if line.startswith(name + " ")).split()[1])


def test_a_budget_for_encoders(start_daemon):
    """Three encoders and room for one: each comes back when it is used, and answers what it always answered."""
    free = start_daemon()
    tight = start_daemon(dict_budget=20000)
    sources = [row["source"] for row in free.get("/v1/sources").json()["sources"]]
    for source in sources + sources[::-1]:
        ask = {"source": source, "text": ASK["text"]}
        assert tight.post("/activations", ask).json() == free.post("/activations", ask).json()
    listed = tight.get("/v1/sources").json()
    assert listed["budget"] == 20000 and 0 < listed["encoderBytes"] <= 40000
    assert sum(row["encoderBytes"] for row in listed["sources"]) == listed["encoderBytes"]
    assert sum(row["encoderBytes"] > 0 for row in listed["sources"]) < len(sources)
    assert metric(tight, "steerd_dict_budget_bytes") == 20000
    assert metric(tight, "steerd_dict_dropped_total") > 0 and metric(free, "steerd_dict_dropped_total") == 0
    assert free.get("/v1/sources").json()["budget"] is None


def test_encoders_in_fewer_bits(start_daemon):
    half, whole = start_daemon(dict_dtype="bf16"), start_daemon()
    size = {d: {r["source"]: r["encoderBytes"] for r in d.get("/v1/sources").json()["sources"]} for d in (half, whole)}
    assert size[half]["1-res-relu"] * 2 == size[whole]["1-res-relu"]
    ask = {**ASK, "index": 63}
    one = half.post("/activations", ask).json()
    other = whole.post("/activations", ask).json()
    assert one["tokens"] == other["tokens"] and one["values"] != other["values"]
    # bf16 keeps 8 bits: each weight is off by 2^-9 of itself at most, a sum of 48 such products by less than a fiftieth
    assert max(abs(a - b) for a, b in zip(one["values"], other["values"])) < 0.02 * max(other["values"])
