"""Lists of features over HTTP. The bodies are those of Neuronpedia's Python client (neuronpedia 1.2.1) and of SAELens' quick list;
test_neuronpedia_client.py uses the client itself."""
import concurrent.futures

import pytest

from conftest import MODEL, Daemon, model_options
from test_uploads import batch, feature, get, post, refused

SOURCE = "1-res-relu"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    daemon = Daemon(model_options(), store=str(tmp_path_factory.mktemp("lists") / "store.sqlite"))
    post(daemon, "/api/model/new", {"id": "pup-3", "layers": 3})
    post(daemon, "/api/source-set/new", {"name": "mine", "modelId": "pup-3"})
    post(daemon, "/api/feature/upload-batch", batch("pup-3", "1-mine", [feature(7), feature(9)]))
    yield daemon
    daemon.finish()


def item(index, model=MODEL, source=SOURCE, description=""):
    return {"modelId": model, "layer": source, "index": index, "description": description}


def new(daemon, name="Animals", **more):
    return post(daemon, "/api/list/new", {"name": name, "description": "about", **more})


def test_as_the_client_does(world):
    made = new(world)
    assert made["name"] == "Animals" and made["description"] == "about" and isinstance(made["id"], str)
    assert made["url"].endswith(f"/list/{made['id']}") and made["count"] == 0
    added = post(world, "/api/list/add-features", {"listId": made["id"], "featuresToAdd": [item("3"), item(7, "pup-3", "1-mine", "the cat")]})
    assert [(row["modelId"], row["layer"], row["index"]) for row in added] == [(MODEL, SOURCE, "3"), ("pup-3", "1-mine", "7")]
    read = post(world, "/api/list/get", {"listId": made["id"]})
    assert read["name"] == "Animals" and [row["index"] for row in read["neurons"]] == ["3", "7"]
    stored = read["neurons"][1]
    assert stored["description"] == "the cat" and stored["explanations"][0]["description"] == "animal number 7"
    assert stored["activations"][0]["maxValue"] == 9.5 and stored["pos_str"] == [" dog", " mouse"] and stored["frac_nonzero"] == 0.01
    mine = {row["id"]: row for row in post(world, "/api/list/list", {})}[made["id"]]
    assert mine["name"] == "Animals" and mine["count"] == 2 and "neurons" not in mine
    assert world.client.post("/api/list/list").status_code == 200  # the client sends no body
    assert post(world, "/api/list/delete", {"listId": made["id"]}) is True
    refused(world, "/api/list/get", {"listId": made["id"]}, 404, "listId")
    refused(world, "/api/list/delete", {"listId": made["id"]}, 404, "listId")


def test_with_features_at_once(world):
    """As SAELens' quick list asks."""
    made = post(world, "/api/list/new-with-features", {"name": "Quick", "testText": "The cat", "features": [item(i) for i in (5, 6, 5)]})
    assert made["count"] == 2 and made["defaultTestText"] == "The cat" and made["url"]
    assert [row["index"] for row in post(world, "/api/list/get", {"listId": made["id"]})["neurons"]] == ["5", "6"]


def test_twice_in_one_request(world):
    """Told once, and as it is in the list: what it was added with first stays."""
    number = new(world)["id"]
    told = post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(3, description="one"), item(3, description="two"), item(4)]})
    assert [(row["index"], row["description"]) for row in told] == [("3", "one"), ("4", "")]
    told = post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(3, description="three"), item("3")]})
    assert [(row["index"], row["description"]) for row in told] == [("3", "one")]


def test_a_feature_tells_its_lists(world):
    for model, source, index in ((MODEL, SOURCE, 60), ("pup-3", "1-mine", 9), (MODEL, "1", 17)):
        path = f"/feature/{model}/{source}/{index}"
        assert get(world, path)["lists"] == []
        made = [new(world, name) for name in ("First", "Second")]
        for one in made:
            post(world, "/api/list/add-features", {"listId": one["id"], "featuresToAdd": [item(index, model, source, f"in {one['name']}")]})
        told = get(world, path)["lists"]
        assert [(row["listId"], row["list"]["id"], row["list"]["name"], row["description"]) for row in told] == [
            (one["id"], one["id"], one["name"], f"in {one['name']}") for one in made]
        assert all((row["modelId"], row["layer"], row["index"]) == (model, source, str(index)) and row["addedAt"] for row in told)
        assert post(world, "/api/features", [{"modelId": model, "layer": source, "index": index}])[0]["lists"] == told
        post(world, "/api/list/remove", {"listId": made[0]["id"], "modelId": model, "layer": source, "index": index})
        assert get(world, path)["lists"] == told[1:]
        post(world, "/api/list/delete", {"listId": made[1]["id"]})
        assert get(world, path)["lists"] == []


def test_pages_of_a_list(world):
    number = post(world, "/api/list/new-with-features", {"name": "Long", "features": [item(i) for i in range(40, 65)]})["id"]
    whole = post(world, "/api/list/get", {"listId": number})
    assert whole["count"] == 25 and len(whole["neurons"]) == 25
    for offset, limit in ((0, 10), (10, 10), (20, 10), (25, 10), (24, 1)):
        part = post(world, "/api/list/get", {"listId": number, "offset": offset, "limit": limit})
        assert part["count"] == 25 and part["neurons"] == whole["neurons"][offset:offset + limit]
    for bad in ({"offset": -1}, {"limit": 0}, {"limit": 1001}):
        refused(world, "/api/list/get", {"listId": number, **bad}, 400, next(iter(bad)))


def test_changes(world):
    number = new(world)["id"]
    post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(3, description="one"), item(4), item(5)]})
    told = post(world, "/api/list/update", {"listId": int(number), "name": "Beasts", "description": None, "defaultTestText": "A dog"})
    assert (told["name"], told["description"], told["defaultTestText"], told["count"]) == ("Beasts", None, "A dog", 3)
    post(world, "/api/list/edit-feature", {"listId": number, **item(4, description="two")})
    post(world, "/api/list/remove", {"listId": number, **item(3)})
    post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(4, description="again"), item(3)]})
    read = post(world, "/api/list/get", {"listId": number})
    assert [(row["index"], row["description"]) for row in read["neurons"]] == [("4", "two"), ("5", ""), ("3", "")]
    assert read["updatedAt"] >= read["createdAt"]
    refused(world, "/api/list/remove", {"listId": number, **item(90)}, 404, "index")
    refused(world, "/api/list/edit-feature", {"listId": number, **item(90)}, 404, "index")
    refused(world, "/api/list/update", {"listId": 10 ** 9, "name": "x"}, 404, "listId")
    refused(world, "/api/list/add-features", {"listId": 10 ** 9, "featuresToAdd": [item(3)]}, 404, "listId")


@pytest.mark.parametrize("features, status, field", [
    ([item(3), item(96)], 404, "featuresToAdd[1].index"), ([item(3), item(3, "nobody")], 404, "modelId"),
    ([item(3), item(3, source="9-none")], 404, "featuresToAdd[1].layer"), ([item(0, "pup-3", "0-mine")], 404, "featuresToAdd[0].index"),
    ([item(-1)], 400, "featuresToAdd[0].index"), ([item("1; DROP TABLE lists")], 400, "featuresToAdd[0].index"), ([], 400, "featuresToAdd"),
    ([item(3)] * 101, 400, "featuresToAdd"), ("x", 400, "featuresToAdd"), ([item(3, description="x" * 5000)], 400, "featuresToAdd[0].description"),
    ([{"index": 3}], 400, "featuresToAdd[0].layer"),
])
def test_bad_features(world, features, status, field):
    """None of a request is added when one cannot be."""
    number = new(world)["id"]
    refused(world, "/api/list/add-features", {"listId": number, "featuresToAdd": features}, status, field)
    assert post(world, "/api/list/get", {"listId": number})["neurons"] == []


@pytest.mark.parametrize("path, body, field", [
    ("new", {}, "name"), ("new", {"name": ""}, "name"), ("new", {"name": " \t\u00a0"}, "name"), ("new", {"name": "x" * 257}, "name"),
    ("new", {"name": 3}, "name"), ("new", {"name": "x", "description": "y" * 5000}, "description"), ("get", {}, "listId"),
    ("get", {"listId": "abc"}, "listId"), ("get", {"listId": -1}, "listId"), ("get", {"listId": "99999999999999999999"}, "listId"),
    ("get", {"listId": "1' OR '1'='1"}, "listId"), ("get", {"listId": 1, "maxActsToReturn": 21}, "maxActsToReturn"),
    ("delete", {"listId": [1]}, "listId"), ("new-with-features", {"name": "x"}, "features"),
    ("new-with-features", {"name": "x", "features": [item(3)] * 1001}, "features"),
])
def test_bad_requests(world, path, body, field):
    refused(world, f"/api/list/{path}", body, 400, field)


def test_hostile_texts_come_back_as_they_are(world):
    name = "<img src=x onerror=alert(1)> \u202e \u0007 '; DROP TABLE lists; --"
    number = new(world, name)["id"]
    assert post(world, "/api/list/get", {"listId": number})["name"] == name
    assert world.client.get("/api/list/nothing").status_code == 404
    assert world.client.post("/api/list/nothing", json={}).status_code == 404


def test_a_feature_that_is_gone_stays_in_its_list(tmp_path):
    """Its source is not loaded any more: its name stands there, with what is stored."""
    store = str(tmp_path / "store.sqlite")
    daemon = Daemon(model_options(), store=store)
    number = new(daemon)["id"]
    post(daemon, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(3)]})
    post(daemon, "/api/explanation/new", {**item(3), "description": "kept words"})
    daemon.finish()
    daemon = Daemon(model_options()[:2], store=store)
    try:
        read = post(daemon, "/api/list/get", {"listId": number})
        assert read["neurons"][0]["explanations"][0]["description"] == "kept words"
        post(daemon, "/api/list/edit-feature", {"listId": number, **item(3, description="still here")})
        post(daemon, "/api/list/remove", {"listId": number, **item(3)})
    finally:
        daemon.finish()


def test_limits(world):
    number = new(world)["id"]
    for first in range(0, 96, 48):
        post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(i) for i in range(first, first + 48)]})
    wide = [{"index": i, "activations": []} for i in range(128)]
    post(world, "/api/source-set/new", {"name": "wide", "modelId": "pup-3"})
    for block in range(8):
        rows = [{**row, "index": row["index"] + 128 * block} for row in wide]
        post(world, "/api/feature/upload-batch", batch("pup-3", "0-wide", rows))
    for first in range(0, 904, 100):
        rows = [item(i, "pup-3", "0-wide") for i in range(first, min(first + 100, 904))]
        post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": rows})
    told = post(world, "/api/list/add-features", {"listId": number, "featuresToAdd": [item(1000, "pup-3", "0-wide")]}, 400)
    assert told["code"] == "limit" and "1000" in told["error"]
    assert len(post(world, "/api/list/get", {"listId": number})["neurons"]) == 1000


def test_many_lists_at_once(world):
    before = len(post(world, "/api/list/list", {}))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: new(world, f"list {n}")["id"], range(60)))
    assert len(set(made)) == 60 and len(post(world, "/api/list/list", {})) == before + 60


def test_without_a_store():
    daemon = Daemon(model_options(), store="")
    try:
        told = post(daemon, "/api/list/new", {"name": "x"}, 501)
        assert "needs a store" in told["error"]
        for path, body in (("add-features", {"listId": 1, "featuresToAdd": [item(3)]}), ("remove", {"listId": 1, **item(3)}),
                           ("update", {"listId": 1, "name": "x"}), ("delete", {"listId": 1}), ("edit-feature", {"listId": 1, **item(3)})):
            assert "needs a store" in post(daemon, f"/api/list/{path}", body, 501)["error"]
        reply = daemon.post("/api/list/list", {})
        assert reply.json() == [] and "none" in reply.headers["X-Store"]
        refused(daemon, "/api/list/get", {"listId": 1}, 404, "listId")
    finally:
        daemon.finish()
