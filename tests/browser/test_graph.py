"""The page of attribution graphs in a real browser: drawn, walked through by mouse and keys, kept under a name, opened again, deleted."""
import json
import re

import pytest
import requests
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from chromium import paint, resize, steerd_http
from page import MODEL, button, count, find, has, open_page, settled, text_of, wait

CLT = steerd_http.VECTORS / "dict-clt"
TEXT = "One night a ship came near"
ALL = "nodeThreshold=1&edgeThreshold=1"  # nothing pruned
SOURCES = [flag for layer in range(3) for flag in ("--source", f"{MODEL}/{layer}-relu={CLT / 'relu'}")]
ONE = ["--model", f"{MODEL}={steerd_http.VECTORS / MODEL / 'model'}"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Transcoders for all three layers, and a store."""
    one = steerd_http.Daemon([*ONE, *SOURCES], store=str(tmp_path_factory.mktemp("graphs") / "store.sqlite"))
    yield one
    one.finish()


@pytest.fixture
def kept(lab):
    """A graph that is kept, as another client made it: (its row, the graph)."""
    made = lab.post("/api/graph/generate", {"modelId": MODEL, "prompt": TEXT, "slug": "ship", "nodeThreshold": 0.9}).json()
    row = lab.get(f"/api/graph/{MODEL}/ship").json()
    assert made["url"] == row["pageUrl"]
    yield row, lab.get(f"/v1/graphs/{MODEL}/ship").json()
    lab.post("/api/graph/delete", {"modelId": MODEL, "slug": "ship"})


def address(more=""):
    return f"/graph#model={MODEL}&set=relu&prompt={TEXT.replace(' ', '+')}{more}"


def marks(browser, of=""):
    return browser.execute_script("return [...document.querySelectorAll('.drawing .mark' + arguments[0])].map((m) => m.dataset.id)", of)


def mark(browser, node):
    return find(browser, f".drawing .mark[data-id='{node}']")


def weights(browser, title):
    """Of the chosen node's table: {node's words: number}, in the table's order."""
    section = next(s for s in browser.find_elements(By.CSS_SELECTOR, ".graphs section section") if s.find_element(By.TAG_NAME, "h3").text.startswith(title))
    for more in section.find_elements(By.CSS_SELECTOR, "button"):
        if more.text.startswith("Show all"):
            more.click()
    return [float(cell.text.replace("−", "-")) for cell in section.find_elements(By.CSS_SELECTOR, "td.right .number")]


def as_told(shown, sent):
    """Three digits, of what is below 0.001 two: half of the last one is at most 0.5 % or 5 %."""
    return len(shown) == len(sent) and all(abs(a - b) <= abs(b) * (0.0051 if abs(b) >= 1e-3 else 0.051) for a, b in zip(shown, sent))


def likeliest(graph):
    return next(n for n in graph["nodes"] if n["is_target_logit"])


# ---- drawing --------------------------------------------------------------------------------------------


def test_form_draws_every_node(browser, lab):
    open_page(browser, lab.url + "/graph")
    has(browser, "No graph is drawn yet")
    has(browser, "No graph is kept yet")
    field = find(browser, "textarea")
    field.clear()
    field.send_keys(TEXT)
    button(browser, "Draw the graph").click()
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    graph = lab.post("/v1/lab/graph", {"text": TEXT, "sourceSet": "relu"}).json()
    assert sorted(marks(browser)) == sorted(n["node_id"] for n in graph["nodes"])
    for kind, name in [(".feature", "cross layer transcoder"), (".error", "mlp reconstruction error"), (".embedding", "embedding"), (".logit", "logit")]:
        assert sorted(marks(browser, kind)) == sorted(n["node_id"] for n in graph["nodes"] if n["feature_type"] == name) != [], name
    facts = text_of(browser).replace("\n", " ")
    assert f"Nodes {len(graph['nodes'])} " in facts and f"Links {len(graph['links'])} " in facts
    assert [g.text for g in browser.find_elements(By.CSS_SELECTOR, ".names text")] == ["Tokens", "Layer 0", "Layer 1", "Layer 2", "Output"]


def test_way_from_the_model(browser, lab):
    open_page(browser, f"{lab.url}/{MODEL}")
    button(browser, "Attribution graph").click()
    has(browser, "No graph is drawn yet")
    assert Select(find(browser, "select")).first_selected_option.text == MODEL


def test_rows_are_layers_and_columns_tokens(browser, lab):
    open_page(browser, lab.url + address(f"&{ALL}"))
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    graph = lab.post("/v1/lab/graph", {"text": TEXT, "nodeThreshold": 1, "edgeThreshold": 1}).json()
    places = browser.execute_script("return Object.fromEntries([...document.querySelectorAll('.drawing .mark')].map((m) => { const b = m.querySelector('.hit').getBBox(); return [m.dataset.id, [b.x + b.width / 2, b.y + b.height / 2]]; }))")
    rows, columns = {}, {}
    for node in graph["nodes"]:
        x, y = places[node["node_id"]]
        rows.setdefault(-1 if node["layer"] == "E" else int(node["layer"]), []).append(y)
        if node["feature_type"] != "logit":
            columns.setdefault(node["ctx_idx"], []).append(x)
    order = sorted(rows)
    assert order == [-1, 0, 1, 2, 4] or order == [-1, 0, 1, 2, 3], order
    for below, above in zip(order, order[1:]):
        assert min(rows[below]) > max(rows[above]), (below, above)
    for left, right in zip(sorted(columns), sorted(columns)[1:]):
        assert max(columns[left]) < min(columns[right]), (left, right)
    assert len(set(map(tuple, places.values()))) == len(places)  # none hides another
    outputs = [n["node_id"] for n in graph["nodes"] if n["feature_type"] == "logit"]
    assert places[outputs[0]] == [max(places[node][0] for node in outputs), min(places[node][1] for node in outputs)]  # the likeliest stands above the last token


def test_a_node_tells_its_links(browser, lab):
    open_page(browser, lab.url + address(f"&{ALL}"))
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    graph = lab.post("/v1/lab/graph", {"text": TEXT, "nodeThreshold": 1, "edgeThreshold": 1}).json()
    into = {}
    for link in graph["links"]:
        into.setdefault(link["target"], []).append(link["weight"])
    sinks = {link["source"] for link in graph["links"]}
    node = next(n for n in graph["nodes"] if n["feature_type"] == "cross layer transcoder" and len(into.get(n["node_id"], [])) > 3
                and min(into[n["node_id"]]) < 0 < max(into[n["node_id"]]) and n["node_id"] in sinks)
    ActionChains(browser).move_to_element(mark(browser, node["node_id"])).click().perform()
    has(browser, f"Feature {node['index']} of {node['source']}")
    assert float(re.search(r"Activation\s+(\S+)", text_of(browser, ".graphs .beside"))[1]) == pytest.approx(node["activation"], rel=1e-3)  # told in 4 digits
    shown, sent = weights(browser, "Inputs"), sorted(into[node["node_id"]], key=abs, reverse=True)
    assert as_told(shown, sent)
    outgoing = sorted((link["weight"] for link in graph["links"] if link["source"] == node["node_id"]), key=abs, reverse=True)
    assert as_told(weights(browser, "Outputs"), outgoing)
    assert find(browser, ".graphs a.button").get_attribute("href").endswith(f"/{MODEL}/{node['source']}/{node['index']}")
    assert f"node={node['node_id']}" in browser.current_url


def test_pointing_shows_links_and_their_sign(browser, lab):
    open_page(browser, lab.url + address(f"&{ALL}"))
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    graph = lab.post("/v1/lab/graph", {"text": TEXT, "nodeThreshold": 1, "edgeThreshold": 1}).json()
    drawn = lambda: (count(browser, ".drawing .link.plus"), count(browser, ".drawing .link.minus"))

    def signs(node):
        """Of the 120 strongest links into it and as many out of it: how many raise, how many lower."""
        most = [w for end in ("source", "target") for w in sorted((link["weight"] for link in graph["links"] if link[end] == node), key=abs, reverse=True)[:120]]
        return sum(w >= 0 for w in most), sum(w < 0 for w in most)

    chosen, other = likeliest(graph)["node_id"], next(n["node_id"] for n in graph["nodes"] if n["feature_type"] == "embedding" and n["ctx_idx"] == 4)
    assert signs(chosen) != signs(other)
    assert drawn() == signs(chosen)
    ActionChains(browser).move_to_element(mark(browser, other)).perform()
    wait(browser, lambda: drawn() == signs(other))
    assert "token 4" in text_of(browser, "#tip")
    assert mark(browser, chosen).get_attribute("class").count("chosen") == 1  # pointing chooses nothing
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    wait(browser, lambda: drawn() == signs(chosen))
    first = max((link for link in graph["links"] if link["target"] == chosen), key=lambda link: abs(link["weight"]))["source"]
    ActionChains(browser).move_to_element(find(browser, ".beside button.node")).perform()  # its row in the table
    wait(browser, lambda: drawn() == signs(first) and marks(browser, ".seen") == [first])
    find(browser, ".beside button.node").click()
    assert marks(browser, ".chosen") == [first] and browser.switch_to.active_element.tag_name == "h2"
    drawing = find(browser, ".scroll.graph")
    drawing.send_keys(Keys.ARROW_UP, Keys.ARROW_UP)  # where the pointer was holds nothing any more
    assert drawn() == signs(*marks(browser, ".here"))


def test_keys_walk_choose_and_pin(browser, lab):
    open_page(browser, lab.url + address())
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    graph = lab.post("/v1/lab/graph", {"text": TEXT}).json()
    drawing = find(browser, ".scroll.graph")
    here = lambda: marks(browser, ".here")
    drawing.send_keys(Keys.ARROW_UP)  # to the chosen node first
    assert here() == [likeliest(graph)["node_id"]]
    browser.execute_script("scrollTo(0, document.querySelector('.drawing').getBoundingClientRect().top + scrollY)")
    drawing.send_keys(Keys.ARROW_DOWN)
    assert browser.execute_script("const b = document.querySelector('#tip').getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight")
    for _ in range(6):
        drawing.send_keys(Keys.ARROW_DOWN)
    (low,) = here()
    assert low.startswith("E_")
    said = text_of(browser, "#tip")
    drawing.send_keys(Keys.ENTER)
    assert marks(browser, ".chosen") == [low] and said.split("\n")[0] == text_of(browser, ".graphs .beside h2")
    drawing.send_keys("p")
    assert marks(browser, ".pinned") == [low]
    drawing.send_keys(Keys.ARROW_LEFT)
    (left,) = here()
    assert left.startswith("E_") and int(left.split("_")[2]) == int(low.split("_")[2]) - 1
    drawing.send_keys(Keys.TAB)
    assert here() == [] and find(browser, "#tip").get_attribute("hidden") is not None


def test_address_brings_back_what_is_looked_at(browser, lab):
    graph = lab.post("/v1/lab/graph", {"text": TEXT}).json()
    link = max((l for l in graph["links"] if l["target"] == likeliest(graph)["node_id"]), key=lambda l: abs(l["weight"]))
    open_page(browser, lab.url + address())
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    button(browser, "Pin").click()
    ActionChains(browser).move_to_element(mark(browser, link["source"])).click().perform()
    button(browser, "Pin").click()
    has(browser, "Pinned nodes (2)")
    browser.execute_script("const r = document.querySelector('input[type=range]'); r.value = 0.5; r.dispatchEvent(new Event('input'))")
    few = marks(browser)
    within = [n["node_id"] for n in graph["nodes"] if n["influence"] <= 0.5 or n["feature_type"] in ("embedding", "logit") or n["node_id"] == link["source"]]
    assert sorted(few) == sorted(within) and len(few) < len(graph["nodes"])
    where = browser.current_url
    browser.get("about:blank")
    open_page(browser, where)
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    assert sorted(marks(browser)) == sorted(few) and marks(browser, ".chosen") == [link["source"]]
    assert set(marks(browser, ".pinned")) == {link["source"], link["target"]}
    pinned = next(s for s in browser.find_elements(By.CSS_SELECTOR, ".graphs section.card") if "Pinned nodes (2)" in s.text)
    told = float(pinned.find_element(By.CSS_SELECTOR, "td.right .number").text.replace("−", "-"))
    assert as_told([told], [link["weight"]])


# ---- keeping --------------------------------------------------------------------------------------------


def shown_next(browser):
    """{next token: [without, with]} as the card tells them."""
    rows = browser.find_elements(By.CSS_SELECTOR, "table.next tbody tr")
    return {row.find_element(By.CSS_SELECTOR, "td").get_attribute("textContent"): [cell.text for cell in row.find_elements(By.CSS_SELECTOR, ".right .number")] for row in rows}


def near(told, value):
    """A percentage in three digits; what was not among the likeliest is below the least of them."""
    return float(told.strip("<% ")) / 100 == pytest.approx(value, rel=0.0051, abs=1e-4)


def test_pinned_nodes_are_turned(browser, lab, kept):
    """In a graph that is kept, as in one that is drawn: the numbers are those of the API for the same nodes."""
    row, graph = kept
    first, second = sorted((n for n in graph["nodes"] if n["feature_type"] == "cross layer transcoder"), key=lambda n: n["influence"])[:2]
    open_page(browser, lab.url + f"/graph?model={MODEL}&slug=ship#pinned={first['node_id']}")
    has(browser, "Turn nodes (1)")
    mark(browser, second["node_id"]).click()
    button(browser, "Pin").click()
    has(browser, "Turn nodes (2)")
    choices = [Select(one) for one in browser.find_elements(By.CSS_SELECTOR, ".graphs .item select")]
    choices[1].select_by_visible_text("twice as strong")
    button(browser, "Continue the text").click()
    has(browser, "Next token")
    at = [{"layer": int(n["layer"]), "index": n["index"], "token_active_position": n["ctx_idx"], "steer_position": n["ctx_idx"]} for n in (first, second)]
    body = {"modelId": MODEL, "sourceSetName": "relu", "prompt": TEXT, "temperature": 0, "nTokens": 20, "topK": 8,
            "features": [{**at[0], "ablate": True}, {**at[1], "delta": second["activation"]}]}
    sent = lab.post("/api/steer-logits", body).json()
    last = len(graph["metadata"]["prompt_tokens"]) - 1
    plain, turned = ({t["token"].replace(" ", "\u00b7"): t["prob"] for t in sent[f"{which}_LOGITS_BY_TOKEN"][last]["top_logits"]} for which in ("DEFAULT", "STEERED"))
    shown = shown_next(browser)
    assert set(shown) == set(plain) | set(turned) and plain != turned
    for token, (without, with_) in shown.items():
        assert without.startswith("<") == (token not in plain) and with_.startswith("<") == (token not in turned)
        assert near(without, plain.get(token, min(plain.values()))) and near(with_, turned.get(token, min(turned.values())))
    assert sent["DEFAULT_GENERATION"].split() == find(browser, ".output.plain .text").text.split()
    assert sent["STEERED_GENERATION"].split() == find(browser, ".output.steered .text").text.split() and sent["STEERED_GENERATION"] != sent["DEFAULT_GENERATION"]
    mark(browser, second["node_id"]).click()  # looking at a node takes nothing away
    assert count(browser, "table.next") == 1
    for choice in choices:
        choice.select_by_visible_text("left as it is")
    button(browser, "Continue the text").click()
    has(browser, "Both texts are the same")
    assert all(len(set(pair)) == 1 for pair in shown_next(browser).values())


def test_nothing_to_turn(browser, lab):
    open_page(browser, lab.url + address())
    has(browser, "Pin features to switch them off")
    assert not any(b.text == "Continue the text" for b in browser.find_elements(By.CSS_SELECTOR, "button"))


def test_keep_open_delete(browser, lab):
    open_page(browser, lab.url + address("&nodeThreshold=0.9"))
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    seen, chosen = marks(browser), marks(browser, ".feature")[0]
    ActionChains(browser).move_to_element(mark(browser, chosen)).click().perform()
    name = find(browser, "form.ask input")
    assert name.get_attribute("value") == "one-night-a-ship-came-near"
    name.clear()
    name.send_keys("ship-1")
    button(browser, "Keep").click()
    has(browser, "Kept as ship-1")
    where = browser.current_url
    assert f"/graph?model={MODEL}&slug=ship-1#node={chosen}" in where
    (row,) = lab.post("/api/graph/list-owned").json()
    assert (row["slug"], row["prompt"], row["sourceSetName"], row["numNodes"]) == ("ship-1", TEXT, "relu", len(seen))
    browser.get("about:blank")
    open_page(browser, where)
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    assert sorted(marks(browser)) == sorted(seen) and marks(browser, ".chosen") == [chosen]
    assert find(browser, "textarea").get_attribute("value") == TEXT and "Limits (1 changed)" in text_of(browser)
    assert find(browser, "ul.list a[aria-current=page]").text == "ship-1" and browser.title.startswith("ship-1")
    button(browser, "Delete").click()  # asks back
    assert lab.post("/api/graph/list-owned").json() != []
    button(browser, "Really delete").click()
    has(browser, "No graph is kept yet")
    assert lab.post("/api/graph/list-owned").json() == []
    assert "slug=" not in browser.current_url and "nodeThreshold=0.9" in browser.current_url
    assert count(browser, "form.ask input") == 1 and sorted(marks(browser)) == sorted(seen)  # what is drawn stays, and can be kept again


@pytest.mark.allow_errors("409")
def test_a_name_that_is_taken(browser, lab, kept):
    open_page(browser, lab.url + address())
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    name = find(browser, "form.ask input")
    name.clear()
    name.send_keys("ship")
    button(browser, "Keep").click()
    has(browser, "there is a graph 'ship' already")
    name.clear()
    name.send_keys("Two Words")
    button(browser, "Keep").click()  # the browser itself refuses
    assert browser.execute_script("return document.querySelector('form.ask input').validity.patternMismatch")


def test_address_that_the_api_gives(browser, lab, kept):
    row, graph = kept
    open_page(browser, row["pageUrl"])
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    assert sorted(marks(browser)) == sorted(n["node_id"] for n in graph["nodes"])
    assert marks(browser, ".chosen") == [likeliest(graph)["node_id"]]
    has(browser, "Kept as ship")
    find(browser, "ul.list button").click()  # from the list
    button(browser, "Really delete").click()
    has(browser, "No graph is kept yet")
    assert lab.get(f"/api/graph/{MODEL}/ship").status_code == 404 and "Kept as" not in text_of(browser)


def test_a_drawn_graph_leaves_the_kept_one(browser, lab, kept):
    row, _ = kept
    open_page(browser, row["pageUrl"])
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    field = find(browser, "textarea")
    field.clear()
    field.send_keys("Another text")
    button(browser, "Draw the graph").click()
    wait(browser, lambda: "slug=" not in browser.current_url and count(browser, ".drawing .mark") > 0)
    assert "prompt=Another+text" in browser.current_url and "Kept as" not in text_of(browser)
    assert count(browser, "ul.list a[aria-current=page]") == 0 and len(lab.post("/api/graph/list-owned").json()) == 1


@pytest.mark.allow_errors("404")
def test_a_kept_graph_that_is_not_there(browser, lab):
    browser.get(lab.url + f"/graph?model={MODEL}&slug=nothing")
    has(browser, "has no graph 'nothing'")
    assert button(browser, "Draw the graph") and count(browser, ".drawing") == 0


def test_a_kept_graph_outlives_its_transcoders(browser, tmp_path):
    store = str(tmp_path / "store.sqlite")
    first = steerd_http.Daemon([*ONE, *SOURCES], store=store)
    try:
        first.post("/api/graph/generate", {"modelId": MODEL, "prompt": TEXT, "slug": "old"})
    finally:
        first.finish()
    second = steerd_http.Daemon(ONE, store=store)
    try:
        open_page(browser, second.url + f"/graph?model={MODEL}&slug=old")
        has(browser, "No transcoders are loaded")
        wait(browser, lambda: count(browser, ".drawing .mark") > 0)
        has(browser, "Kept as old")
        assert "all that is written there is error" not in text_of(browser)
        assert "Turn nodes" not in text_of(browser)
    finally:
        second.finish()
    third = steerd_http.Daemon(["--model", f"other={steerd_http.VECTORS / MODEL / 'model'}"], store=store)  # nor is its model loaded
    try:
        open_page(browser, third.url + f"/graph?model={MODEL}&slug=old")
        wait(browser, lambda: count(browser, ".drawing .mark") > 0)
        has(browser, "Kept as old")
    finally:
        third.finish()


# ---- other states ---------------------------------------------------------------------------------------


def bring(daemon, graph):
    body = json.dumps(graph).encode()
    place = daemon.post("/api/graph/signed-put", {"filename": "g.json", "contentLength": len(body)}).json()
    assert requests.put(place["url"], data=body, timeout=30).status_code == 200
    saved = daemon.post("/api/graph/save-to-db", {"putRequestId": place["putRequestId"]})
    assert saved.status_code == 200, saved.text
    return saved.json()["url"]


ELSEWHERE = {  # no more than Neuronpedia's schema asks for
    "metadata": {"slug": "elsewhere", "scan": MODEL, "prompt": "<u>A ship", "prompt_tokens": ["<u>A", " ship"]}, "qParams": {},
    "nodes": [{"node_id": "E_5_0", "feature": 0, "layer": "E", "ctx_idx": 0, "feature_type": "embedding", "jsNodeId": "E_5-0", "clerp": ""},
              {"node_id": "1_7_1", "feature": 43, "layer": 1, "ctx_idx": 1, "feature_type": "cross layer transcoder", "jsNodeId": "1_7-0", "clerp": ""},
              {"node_id": "4_9_1", "feature": 9, "layer": "4", "ctx_idx": 1, "feature_type": "logit", "jsNodeId": "L_9-1", "clerp": 'Output "<s>x" (p=0.750)'}],
    "links": [{"source": "E_5_0", "target": "1_7_1", "weight": 1.5}, {"source": "1_7_1", "target": "4_9_1", "weight": -0.25}, {"source": "gone", "target": "4_9_1", "weight": 1}]}


def test_a_graph_that_was_made_elsewhere(browser, lab):
    url = bring(lab, ELSEWHERE)
    try:
        open_page(browser, url)
        wait(browser, lambda: count(browser, ".drawing .mark") > 0)
        assert set(marks(browser)) == {"E_5_0", "1_7_1", "4_9_1"}
        has(browser, "Made elsewhere")
        assert "Replacement" not in text_of(browser)
        mark(browser, "1_7_1").click()
        has(browser, "Feature 7 of layer 1")
        has(browser, "Nothing is known of this feature here")
        assert "<s>x" in text_of(browser) and count(browser, "main u, main s") == 0
        assert "That did not work" not in text_of(browser)
    finally:
        lab.post("/api/graph/delete", {"modelId": MODEL, "slug": "elsewhere"})


def test_a_server_without_store(browser):
    daemon = steerd_http.Daemon([*ONE, *SOURCES], store="")
    try:
        open_page(browser, daemon.url + address())
        wait(browser, lambda: count(browser, ".drawing .mark") > 0)
        has(browser, "No graphs: this server keeps nothing")
        assert count(browser, "form.ask") == 0 and button(browser, "Download the JSON")
    finally:
        daemon.finish()


def test_layers_without_a_transcoder_are_told(browser):
    daemon = steerd_http.Daemon([*ONE, "--source", f"{MODEL}/1-relu={CLT / 'relu'}"], store="")
    try:
        open_page(browser, daemon.url + address())
        wait(browser, lambda: count(browser, ".drawing .mark") > 0)
        has(browser, "No transcoder of this set stands for the MLP of layers 0 and 2")
        assert {node.split("_")[1] for node in marks(browser, ".error")} >= {"0", "2"}
    finally:
        daemon.finish()


def test_no_transcoders(browser, bare):
    open_page(browser, bare.url + "/graph")
    has(browser, "No transcoders are loaded")
    assert f"--source MODEL/LAYER-SET=PATH" in text_of(browser)


@pytest.mark.allow_errors("400")
def test_a_wrong_limit_stands_beneath_its_field(browser, lab):
    open_page(browser, lab.url + address("&maxLogits=99"))
    has(browser, "Nothing is drawn")
    bad = find(browser, "input[aria-invalid=true]")
    assert bad.get_attribute("value") == "99" and browser.switch_to.active_element == bad
    assert "maxLogits" in find(browser, f"#{bad.get_attribute('aria-errormessage')}").text
    bad.clear()
    bad.send_keys("3" + Keys.ENTER)
    wait(browser, lambda: count(browser, ".drawing .mark.logit") > 0)
    assert count(browser, ".drawing .mark.logit") <= 3 and count(browser, "[aria-invalid]") == 0


def test_a_long_run_is_stopped(browser, lab):
    open_page(browser, lab.url + "/graph")
    browser.execute_script("document.querySelector('textarea').value = arguments[0]; document.querySelector('summary').click()", " ".join([TEXT] * 10))
    for field in browser.find_elements(By.CSS_SELECTOR, "details input")[-2:]:
        field.send_keys("1")
    browser.execute_script("const ask = window.fetch; window.cut = 0; window.fetch = (where, how) => { how?.signal?.addEventListener('abort', () => window.cut++); return ask(where, how); }")
    button(browser, "Draw the graph").click()
    button(browser, "Stop").click()
    has(browser, "Stopped.")
    assert browser.execute_script("return window.cut") == 1  # the server is told
    assert count(browser, ".drawing") == 0 and not [b for b in browser.find_elements(By.CSS_SELECTOR, "button") if b.text == "Stop"]
    browser.execute_script("document.querySelector('textarea').value = arguments[0]", TEXT)
    button(browser, "Draw the graph").click()
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)


def test_hostile_tokens_stay_text(browser, lab):
    hostile = "<img src=x onerror=\"document.title='owned'\">\u202eevil"
    open_page(browser, lab.url + "/graph")
    browser.execute_script("document.querySelector('textarea').value = arguments[0]", hostile)
    button(browser, "Draw the graph").click()
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    assert count(browser, "main img") == 0 and browser.title.startswith("Graph") and "\u202e" not in text_of(browser)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_graph_fits_a_phone(browser, lab, kept, scheme):
    row, graph = kept
    resize(browser, 360, 740)
    paint(browser, scheme)
    open_page(browser, row["pageUrl"])
    wait(browser, lambda: count(browser, ".drawing .mark") > 0)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    node = likeliest(graph)["node_id"]
    seen = browser.execute_script("const b = arguments[0].getBoundingClientRect(), n = document.querySelector('.names').getBoundingClientRect(); return b.left >= n.right - 1 && b.right <= innerWidth", mark(browser, node))
    assert seen, "the likeliest output is scrolled to"
    tops = browser.execute_script("return [...document.querySelectorAll('.graphs > *')].map((part) => part.getBoundingClientRect().top)")
    assert tops == sorted(tops) and "Output" in text_of(browser, ".graphs > :nth-child(2) h2")  # what is chosen stands right below the drawing
    places = browser.execute_script("return [...document.querySelectorAll('.drawing .mark .hit')].map((r) => { const b = r.getBBox(); return [b.x, b.y]; })")
    assert len({json.dumps(place) for place in places}) == len(places)
    assert count(browser, "[style]:not(i):not(.middle):not(#tip)") == 0
