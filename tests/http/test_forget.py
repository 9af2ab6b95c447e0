"""What was registered and uploaded is deleted again: gone from every route, from the pages, from the searches and from the bytes of the
store's file, also for the next daemon; what is loaded, and files, stay. And the store's most bytes, beyond which clients add nothing."""
import pathlib
import shutil

import pytest

from conftest import MODEL, VECTORS, Daemon, model_options
from test_uploads import batch, feature, get, post, refused

WORD = "xylophonic"  # in explanations; the tokens and the names below are as rare
HTML = {"Accept": "text/html"}


def secret(index, word):
    one = feature(index, explanations=[{"text": f"{WORD} animal of {word}", "methodName": None, "modelName": None}])
    one["activations"][0]["tokens"] = [f"token-{word}", " cat", " sat"]
    return one


def register(daemon, model, *sets, layers=2):
    post(daemon, "/api/model/new", {"id": model, "layers": layers})
    for name in sets:
        post(daemon, "/api/source-set/new", {"modelId": model, "name": name, "description": f"about-{name}"})
        for layer in range(layers):
            post(daemon, "/api/feature/upload-batch", batch(model, f"{layer}-{name}", [secret(i, f"{model}-{name}") for i in (3, 9)]))


def start(store, *more):
    return Daemon(model_options() + list(more), store=str(store))


def bytes_of(store):
    return b"".join(path.read_bytes() for path in store.parent.glob(store.name + "*"))


def found(daemon, model=None):
    body = {"query": WORD, **({"modelId": model} if model else {})}
    return post(daemon, "/api/explanation/search-model" if model else "/api/explanation/search-all", body)["resultsCount"]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store.sqlite"


def nowhere(daemon, model, name):
    """A set that is told nowhere."""
    for layer in (0, 1):
        for path in (f"/feature/{model}/{layer}-{name}/3", f"/v1/lab/dictionaries/{model}/{layer}-{name}", f"/api/source-set/{model}/{name}"):
            assert daemon.get(path).status_code == 404, path
        for path in (f"/{model}/{layer}-{name}", f"/{model}/{layer}-{name}/3"):
            assert daemon.get(path, headers=HTML).status_code == 404, path
        assert get(daemon, f"/explanations?saeId={layer}-{name}&modelId={model}", 404)
    assert name not in daemon.get("/models").text and name not in daemon.post("/api/model/list", {}).text


def test_a_model(store):
    daemon = start(store)
    register(daemon, "gone-model", "gone-set")
    register(daemon, "kept-model", "kept-set")
    made = post(daemon, "/api/list/new-with-features", {"name": "Mixed", "features": [
        {"modelId": model, "layer": f"1-{name}", "index": 9} for model, name in (("gone-model", "gone-set"), ("kept-model", "kept-set"))]})
    before = get(daemon, "/feature/kept-model/1-kept-set/9")
    assert found(daemon) == 8 and b"token-gone-model-gone-set" in bytes_of(store)
    assert post(daemon, "/api/model/delete", {"id": "gone-model"}) == {"message": "Success"}

    def check(one):
        nowhere(one, "gone-model", "gone-set")
        assert one.get("/gone-model", headers=HTML).status_code == 404 and "gone-model" not in one.get("/models").text
        refused(one, "/api/model/get", {"id": "gone-model"}, 404, "modelId")
        assert found(one) == 4 == found(one, "kept-model") and get(one, "/feature/kept-model/1-kept-set/9") == before
        rows = post(one, "/api/list/get", {"listId": made["id"]})["neurons"]
        assert [row["modelId"] for row in rows] == ["gone-model", "kept-model"] and rows[0]["activations"] == rows[0]["explanations"] == []

    check(daemon)
    refused(daemon, "/api/model/delete", {"id": "gone-model"}, 404, "id")
    daemon.finish()
    left = bytes_of(store)
    for word in (b"token-gone-model", b"animal of gone-model", b"about-gone-set"):
        assert word not in left, word
    assert b"token-kept-model" in left
    daemon = start(store)
    check(daemon)
    register(daemon, "gone-model", "gone-set")  # the names are free again, and nothing of the first is there
    assert found(daemon) == 8 and len(get(daemon, "/feature/gone-model/1-gone-set/9")["explanations"]) == 1
    daemon.finish()


def test_a_set_and_a_source(store):
    daemon = start(store)
    register(daemon, "pup", "one", "two", "three")
    assert post(daemon, "/api/source-set/delete", {"modelId": "pup", "name": "one"}) == {"message": "Success"}
    nowhere(daemon, "pup", "one")
    told = daemon.client.delete("/v1/sources/pup/1-two")
    assert told.status_code == 200 and told.json() == {"modelId": "pup", "source": "1-two", "state": "deleted"}
    for path in ("/feature/pup/1-two/3", "/v1/lab/dictionaries/pup/1-two"):
        get(daemon, path, 404)
    get(daemon, "/feature/pup/0-two/3")
    assert found(daemon) == 6
    assert daemon.client.delete("/v1/sources/pup/1-two").status_code == 404
    for body in ({"modelId": "pup", "name": "one"}, {"modelId": "pup", "name": "none"}):
        refused(daemon, "/api/source-set/delete", body, 404, "name")
    refused(daemon, "/api/source-set/delete", {"modelId": "nobody", "name": "two"}, 404, "modelId")
    daemon.finish()
    daemon = start(store)
    nowhere(daemon, "pup", "one")
    get(daemon, "/feature/pup/1-two/3", 404)
    assert [row["id"] for row in get(daemon, "/api/source-set/pup/two")["sources"]] == ["0-two"] and found(daemon) == 6
    daemon.finish()


def test_a_feature_is_uploaded_anew(store):
    """What is uploaded replaces nothing: a mistake is deleted first."""
    daemon = start(store)
    register(daemon, "pup", "mine")
    whose = {"modelId": "pup", "source": "1-mine", "index": 3}
    assert post(daemon, "/api/feature/delete", whose) == {"message": "Success"}
    get(daemon, "/feature/pup/1-mine/3", 404)
    assert found(daemon) == 3
    refused(daemon, "/api/feature/delete", whose, 404, "index", "1 feature was uploaded, and it is another one")
    assert post(daemon, "/api/feature/upload-batch", batch("pup", "1-mine", [feature(3)]))["created"] == 1
    assert get(daemon, "/feature/pup/1-mine/3")["explanations"][0]["description"] == "animal number 3"
    refused(daemon, "/api/feature/delete", {"modelId": MODEL, "source": "1-res-relu", "index": 3}, 409, "source", "has a dictionary")
    daemon.finish()


def test_what_is_loaded_stays(store):
    daemon = start(store, "--source-folders", str(VECTORS / MODEL / "sources"))
    before = get(daemon, f"/feature/{MODEL}/1-res-relu/3")
    refused(daemon, "/api/model/delete", {"id": MODEL}, 409, "id", "is loaded")
    refused(daemon, "/api/source-set/delete", {"modelId": MODEL, "name": "res-relu"}, 409, "name", "DELETE /v1/sources")
    refused(daemon, "/api/source-set/delete", {"modelId": MODEL, "name": "neurons"}, 404, "name")
    assert get(daemon, f"/feature/{MODEL}/1-res-relu/3") == before
    post(daemon, "/api/explanation/new", {"modelId": MODEL, "layer": "1-res-relu", "index": 3, "description": "mine"})
    assert daemon.client.delete(f"/v1/sources/{MODEL}/1-res-relu").json()["state"] == "unloading"
    for _ in range(2):  # what was counted of a dictionary is no upload: neither a second DELETE nor its set's takes it away
        assert daemon.client.delete(f"/v1/sources/{MODEL}/1-res-relu").status_code == 404
        refused(daemon, "/api/source-set/delete", {"modelId": MODEL, "name": "res-relu"}, 404, "name")
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-res-relu", "path": "1-res-relu"}).status_code == 201
    assert get(daemon, f"/feature/{MODEL}/1-res-relu/3")["explanations"][0]["description"] == "mine"
    daemon.finish()


def test_a_set_of_which_a_source_was_loaded(store, tmp_path):
    """While it is loaded the set stays; the dictionary's files do in any case."""
    folder = tmp_path / "saes" / "1-mine"
    shutil.copytree(VECTORS / MODEL / "sources" / "1-res-relu", folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    daemon = start(store, "--source-folders", str(folder.parent))
    post(daemon, "/api/source-set/new", {"modelId": MODEL, "name": "mine"})
    post(daemon, "/api/feature/upload-batch", batch(MODEL, "0-mine", [secret(3, "zero")]))
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-mine", "path": str(folder)}).status_code == 201
    refused(daemon, "/api/source-set/delete", {"modelId": MODEL, "name": "mine"}, 409, "name", "'1-mine'")
    get(daemon, f"/feature/{MODEL}/0-mine/3")
    assert daemon.client.delete(f"/v1/sources/{MODEL}/1-mine").status_code == 200
    for _ in range(50):  # until whoever used it is done
        if daemon.post("/api/source-set/delete", {"modelId": MODEL, "name": "mine"}).status_code == 200:
            break
    assert daemon.get(f"/feature/{MODEL}/0-mine/3").status_code == 404 and found(daemon) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-mine", "path": str(folder)}).status_code == 201
    daemon.finish()


def test_bodies_that_name_nothing(store):
    daemon = start(store)
    register(daemon, "pup", "mine")
    for path, body in (("/api/model/delete", {}), ("/api/model/delete", {"id": ""}), ("/api/source-set/delete", {"modelId": "pup"}),
                       ("/api/feature/delete", {"modelId": "pup", "source": "1-mine"})):
        assert post(daemon, path, body, 400)["code"] == "argument"
    assert found(daemon) == 4
    daemon.finish()


def test_without_a_store():
    daemon = Daemon(model_options(), store="")
    for path, body in (("/api/model/delete", {"id": "x"}), ("/api/source-set/delete", {"modelId": MODEL, "name": "x"}),
                       ("/api/feature/delete", {"modelId": MODEL, "source": "1-res-relu", "index": 1})):
        assert "--store" in post(daemon, path, body, 501)["error"]
    daemon.finish()


# ---- the store's most bytes -------------------------------------------------------------------------------


def test_a_full_store(store):
    """Clients add until the store has so many bytes; what is deleted makes room again, and reading goes on."""
    daemon = start(store, "--max-store", str(1 << 20))
    register(daemon, "pup", "mine")
    big = ["t" * 1000] * 512
    added = 0
    for index in range(100, 140):
        one = feature(index, activations=[{"tokens": big, "values": [1.0] * 512}] )
        reply = daemon.post("/api/feature/upload-batch", batch("pup", "1-mine", [one]))
        if reply.status_code != 200:
            break
        added += 1
    assert reply.status_code == 507 and reply.json()["code"] == "full" and "max_store" in reply.json()["error"], reply.text
    assert added == 1  # of half a MiB each
    assert store.stat().st_size < 2 << 20
    for path, body in (("/api/activation/upload-batch", {"modelId": "pup", "source": "1-mine", "index": 3, "activations": [{"tokens": big, "values": [2.0] * 512}]}),
                       ("/api/feature/upload-batch", batch("pup", "1-mine", [one]))):
        assert daemon.post(path, body).status_code == 507, path
    get(daemon, "/feature/pup/1-mine/100")
    assert post(daemon, "/api/source-set/delete", {"modelId": "pup", "name": "mine"})
    post(daemon, "/api/source-set/new", {"modelId": "pup", "name": "mine"})
    assert post(daemon, "/api/feature/upload-batch", batch("pup", "1-mine", [one]))["created"] == 1
    daemon.finish()


def test_all_that_clients_add_is_bounded(store):
    daemon = start(store, "--max-store", "1")
    whose = {"modelId": MODEL, "layer": "1-res-relu", "index": 3}
    for path, body in (("/api/model/new", {"id": "pup", "layers": 2}), ("/api/source-set/new", {"modelId": MODEL, "name": "mine"}),
                       ("/api/feature/upload-batch", batch(MODEL, "1-res-relu", [feature(1)])),
                       ("/api/explanation/new", {**whose, "description": "x"}), ("/api/list/new", {"name": "x"}),
                       ("/api/vector/new", {"modelId": MODEL, "layerNumber": 1, "hookType": "resid-pre", "vector": [0.5] * 48}),
                       ("/steer", {"prompt": "a", "n_tokens": 1, "share": True, "features": []}), ("/api/graph/generate", {"prompt": "a"})):
        assert post(daemon, path, body, 507)["code"] == "full", path
    get(daemon, f"/feature/{MODEL}/1-res-relu/3")
    daemon.finish()
    daemon = start(store, "--max-store", "0")  # no limit
    post(daemon, "/api/model/new", {"id": "pup", "layers": 2})
    daemon.finish()
