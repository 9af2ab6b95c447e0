"""Feature statistics by their definitions (docs/statistics.md) in NumPy float64, for the scripts that record what steerd's
own must be. Nothing here streams, merges or keeps heaps: all values lie in memory and are counted.

A float32 program decides comparisons otherwise where two values all but coincide. So every value comes with a slack, how
far float32 may be from it, and what is recorded is every choice the slacks leave open and no other:

- `fires` says whether a position fires, `near` that it may be otherwise (it then has the value `V` or none);
- an edge of bars or intervals has how many positions may rise over it, and how many may fall below;
- a ranking has candidates (value, slack, sure): all that may be among its first n;
- values are `same` where they are equal in any arithmetic, because what lies before them is equal (the same prefix of two
  documents): there the written order among equals (the lower number first) must hold, slack or not.
"""
import numpy as np

BARS, INTERVALS, LOGIT_BARS = 64, 8, 50
LIST = 10  # logits at each end, and neighbours


def philox(seed, stream, position):
    """Philox-4x32-10 after Salmon et al. (SC 2011), counter words (position low, high, stream low, high): four arrays."""
    word = np.uint64(0xFFFFFFFF)
    stream, position = (np.atleast_1d(np.asarray(x, np.uint64)) for x in (stream, position))
    c = [position & word, position >> np.uint64(32), stream & word, stream >> np.uint64(32)]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(right >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), right & word,
             (left >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), left & word]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


assert [int(w[0]) for w in philox(0, 0, 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # known answer


class Text:
    """Documents of token ids, and which of their positions are equal in any arithmetic: those with equal prefixes."""

    def __init__(self, documents, bos_counts, seed=0):
        self.documents, self.bos_counts = documents, bos_counts
        self.lengths = np.array([len(ids) for ids in documents])
        self.first = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.document = np.repeat(np.arange(len(documents)), self.lengths)
        self.position = np.arange(len(self.document)) - self.first[self.document]
        self.counted = np.ones(len(self.document), bool) if bos_counts else self.position > 0
        self.n_tokens = int(self.counted.sum())
        prefixes, self.same, self.fresh = {}, np.empty(len(self.document), np.int64), []
        for d, ids in enumerate(documents):
            node = -1  # a prefix is the number of the prefix before it, and one token more
            for t, token in enumerate(ids):
                new = len(prefixes)
                node = prefixes.setdefault((node, token), new)
                if node == new:
                    self.fresh.append((d, t))  # the first place of each prefix, in order
                self.same[self.first[d] + t] = node
        first, second = philox(seed, self.document, self.position)[:2]
        self.key = first << np.uint64(32) | second
        assert len(np.unique(self.key)) == len(self.key)
        self.by_key = np.argsort(self.key)


def range_of(largest):
    """R: the smallest power of two above the largest value (never at it: `count` asserts that there is room)."""
    return float(2.0 ** (np.floor(np.log2(largest)) + 1)) if largest > 0 else 0.0


def open_edges(values, slacks, weights, edges):
    """How many values (weights) may rise over each edge, and may fall below it."""
    rise, fall = (np.zeros(len(edges), np.int64) for _ in range(2))
    order = np.argsort(values)
    values, slacks, weights = values[order], slacks[order], weights[order]
    for k, edge in enumerate(edges):
        at = slice(*np.searchsorted(values, [edge - slacks.max(initial=0), edge + slacks.max(initial=0)], "left"))
        v, s, w = values[at], slacks[at], weights[at]
        rise[k] = w[(v < edge) & (v + s >= edge)].sum()
        fall[k] = w[(v >= edge) & (v - s <= edge)].sum()
    return rise, fall


def candidates(values, slacks, sure, group, same, n):
    """Numbers of all that may be among the first n groups by (value descending, group), the likeliest order first."""
    low = np.where(sure, values - slacks, -np.inf)
    groups, place = np.unique(group, return_inverse=True)
    best = np.full(len(groups), -np.inf)
    np.maximum.at(best, place, low)  # what each group surely has
    limit = np.sort(best)[-n] if len(groups) >= n else -np.inf
    keep = np.flatnonzero((values + slacks >= best[place]) & (values + slacks >= limit))
    keep = keep[np.lexsort((group[keep], -values[keep]))]
    kept, seen = [], {}
    for i in keep:  # of equal values the first n groups alone can be among n
        seen[same[i]] = seen.get(same[i], 0) + 1
        if seen[same[i]] <= n:
            kept.append(i)
    return np.array(kept, np.int64)


def number_same(same):
    """Equal numbers for equal ones, small enough for a byte."""
    return np.unique(same, return_inverse=True)[1] if len(same) else same


class Columns:
    """Rows of several columns for each feature, kept flat: rows of i are first[i] .. first[i + 1]."""

    def __init__(self):
        self.first, self.columns = [0], {}

    def add(self, **columns):
        lengths = {len(values) for values in columns.values()}
        assert len(lengths) == 1
        self.first.append(self.first[-1] + lengths.pop())
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    def save(self, name, tensors):
        tensors[f"{name}/first"] = np.array(self.first, np.int32)
        for column, parts in self.columns.items():
            tensors[f"{name}/{column}"] = narrow(np.concatenate(parts))


def narrow(values):
    """The smallest type of the file that holds them."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    assert values.size == 0 or values.min() >= 0
    top = values.max(initial=0)
    return values.astype(np.uint8 if top < 1 << 8 else np.uint16 if top < 1 << 16 else np.int32)


class Counter:
    """Counts one source over one text; one call of `feature` each."""

    def __init__(self, text, n_top, n_quantile, window):
        self.text, self.n_top, self.n_quantile, self.window = text, n_top, n_quantile, window
        self.weight = np.bincount(text.same[text.counted], minlength=len(text.fresh))  # counted positions of each prefix
        self.rows = {name: [] for name in ("n_fired", "sum", "sum_slack", "max", "max_low", "max_high", "range", "bars", "rise",
                                           "fall")}
        self.top, self.interval, self.windows = Columns(), Columns(), Columns()
        self.near = {"firing": 0, "bar edges": 0, "ranks": 0, "interval examples": 0, "window values": 0}

    def feature(self, V, fires, near, slack):
        """V [U] values in folded units where they fire, fires and near [U] bool, slack [U], over distinct prefixes."""
        V = np.maximum(V, 0)
        self.fires, self.maybe = fires, fires | near
        assert (near | ~fires | (V > slack)).all()  # what surely fires is surely above zero
        self.count(V, fires, near, slack)
        at = np.flatnonzero(self.text.counted & self.maybe[self.text.same])
        self.rank(at, V, fires & ~near, slack)
        self.sample(V, fires & ~near, slack)

    def count(self, V, fires, near, slack):
        w, rows, maybe = self.weight, self.rows, self.maybe & (self.weight > 0)
        fired, sure = fires & (w > 0), fires & ~near & (w > 0)
        largest = V[fired].max(initial=0)
        low, high = (V - slack)[sure].max(initial=0), (V + slack)[maybe].max(initial=0)
        R = range_of(largest)
        assert sure.any() == fired.any() and range_of(low) == R == range_of(high), "a power of two is as near as the slack"
        rise, fall = (np.zeros(BARS, np.int64) for _ in range(2))
        bars = np.zeros(BARS, np.int64)
        if R:
            width = R / BARS
            bar = np.minimum(np.floor(V / width).astype(int), BARS - 1)
            bars = np.bincount(bar[fired], w[fired], BARS).astype(np.int64)
            rise[1:], fall[1:] = open_edges(V[maybe], slack[maybe], w[maybe], width * np.arange(1, BARS))
            self.near["bar edges"] += int(rise.sum() + fall.sum())
            for i in np.flatnonzero(near & maybe):  # there or not, in its bar: over every edge up to it
                (fall if fires[i] else rise)[:bar[i] + 1] += w[i]
        self.near["firing"] += int(w[near].sum())
        for name, value in (("n_fired", w[fired].sum()), ("sum", (V * w)[fired].sum()), ("max", largest), ("max_low", low),
                            ("sum_slack", (slack * w)[maybe].sum() + (V * w)[near].sum()), ("max_high", high), ("range", R),
                            ("bars", bars), ("rise", rise), ("fall", fall)):
            rows[name].append(value)

    def rank(self, at, V, sure, slack):
        """The top examples; `at` are the counted positions that may fire."""
        text, same = self.text, self.text.same[at]
        keep = candidates(V[same], slack[same], sure[same], text.document[at], same, self.n_top)
        at, same = at[keep], same[keep]
        self.top.add(document=text.document[at], position=text.position[at], same=number_same(same),
                     sure=sure[same].astype(int), value=V[same], slack=slack[same])
        first = []
        if len(at):
            best = (V[same] - slack[same])[sure[same]].max(initial=0)
            first = [i for i in range(len(at)) if V[same[i]] + slack[same[i]] >= best and same[i] not in same[:i]]
            values, slacks = V[same], slack[same]
            self.near["ranks"] += sum(
                bool(same[i] != same[i + 1] and values[i] - slacks[i] <= values[i + 1] + slacks[i + 1])
                for i in range(min(len(at) - 1, self.n_top)))
        self.show(at[first], V, sure, slack)

    def show(self, at, V, sure, slack):
        """Windows of all positions that may be the first example: one, if nothing ties."""
        text, window = self.text, self.window
        shown = 0 if text.bos_counts else 1
        out = {name: [] for name in ("document", "position", "start", "length", "tokens", "values", "slacks")}
        for i in at:
            d, p = int(text.document[i]), int(text.position[i])
            length = int(text.lengths[d])
            s = max(shown, p - 3 * window // 4)
            s = max(shown, min(s, length - window))
            n = min(window, length - s)
            same = text.same[text.first[d] + s:text.first[d] + s + n]
            maybe = self.maybe[same]
            values = np.where(self.fires[same], V[same], 0)
            open_value = maybe & ~sure[same]  # its value or 0: both are within the slack then
            slacks = np.maximum(slack[same], np.where(open_value, V[same] + slack[same], 0))
            self.near["window values"] += int(open_value.sum())
            pad = window - n
            for name, value in (("document", d), ("position", p), ("start", s), ("length", n),
                                ("tokens", np.pad(text.documents[d][s:s + n], (0, pad))),
                                ("values", np.pad(values, (0, pad))), ("slacks", np.pad(slacks, (0, pad)))):
                out[name].append(value)
        for name in ("tokens", "values", "slacks"):
            out[name] = np.array(out[name], float if name != "tokens" else int).reshape(-1, window)
        self.windows.add(**{name: np.array(value) for name, value in out.items()})

    def sample(self, V, sure, slack):
        """For each interval its positions by key, as far as n_quantile that are sure (or all)."""
        text, R = self.text, self.rows["range"][-1]
        order = text.by_key[text.counted[text.by_key]]
        same = text.same[order]
        v, s, maybe, sure = V[same], slack[same], self.maybe[same], sure[same]
        for i in range(INTERVALS):
            low, high = R / INTERVALS * i, R / INTERVALS * (i + 1)
            may, must = maybe & (R > 0), sure
            if i > 0:
                may, must = may & (v + s >= low), must & (v - s > low)
            if i < INTERVALS - 1:
                may, must = may & (v - s <= high), must & (v + s < high)
            members = np.flatnonzero(may)
            if not len(members):
                at = members
            else:
                known = np.flatnonzero(must[members])
                at = members[:known[self.n_quantile - 1] + 1] if len(known) >= self.n_quantile else members
            self.near["interval examples"] += int((~must[at]).sum())
            self.interval.add(document=text.document[order[at]], position=text.position[order[at]], same=number_same(same[at]),
                              sure=must[at].astype(int), value=v[at], slack=s[at])

    def save(self, tensors):
        for name, rows in self.rows.items():
            tensors[name] = narrow(np.array(rows))
        for name, columns in (("top", self.top), ("interval", self.interval), ("window", self.windows)):
            columns.save(name, tensors)


def tell_rows(rows):
    """A number for each row, equal rows the same one."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def add_ranking(out, values, slacks, same, n):
    keep = candidates(values, slacks, np.ones(len(values), bool), np.arange(len(values)), same, n)
    out.add(id=keep, same=number_same(same[keep]), value=values[keep], slack=slacks[keep])


def dictionary_tables(decoder, unembedding, logit_slack, cosine_slack, tensors):
    """Logits and neighbours: decoder [F, d] and unembedding [V, d] raw; slacks are relative to max(1, |value|)."""
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    logits, cosines = unit @ unembedding.T, unit @ unit.T
    top, bottom, near = Columns(), Columns(), Columns()
    same_logit, same_row = tell_rows(unembedding), tell_rows(decoder)
    ranges, bars, rises, falls = [], [], [], []
    for f, row in enumerate(logits):
        slack = logit_slack * np.maximum(1, np.abs(row))
        add_ranking(top, row, slack, same_logit, LIST)
        add_ranking(bottom, -row, slack, same_logit, LIST)
        low, high = row.min(), row.max()
        bar = np.minimum(np.floor((row - low) / ((high - low) / LOGIT_BARS)).astype(int), LOGIT_BARS - 1)
        edges = low + (high - low) / LOGIT_BARS * np.arange(1, LOGIT_BARS)
        inner = (row > low) & (row < high)  # the ends are where they are by definition
        rise, fall = open_edges(row[inner], 3 * slack[inner], np.ones(inner.sum(), int), edges)  # value, low and high move
        ranges.append((low, high))
        bars.append(np.bincount(bar, minlength=LOGIT_BARS))
        rises.append(np.concatenate([[0], rise]))
        falls.append(np.concatenate([[0], fall]))
        others = np.delete(np.arange(len(decoder)), f)
        keep = candidates(cosines[f, others], np.full(len(others), cosine_slack), np.ones(len(others), bool), others,
                          same_row[others], LIST)
        near.add(id=others[keep], same=number_same(same_row[others][keep]), value=cosines[f, others][keep],
                 slack=np.full(len(keep), cosine_slack))
    for name, columns in (("logits_top", top), ("logits_bottom", bottom), ("neighbours", near)):
        columns.save(name, tensors)
    tensors["logits_bottom/value"] = -tensors["logits_bottom/value"]
    tensors["logits_range"] = narrow(np.array(ranges))
    for name, rows in (("logits_bars", bars), ("logits_rise", rises), ("logits_fall", falls)):
        tensors[name] = narrow(np.array(rows))
    tensors["logits_slack"] = np.array([logit_slack], np.float32)
    return {"logit bar edges": int(np.sum(rises) + np.sum(falls)),
            "candidates beyond the lists": int(sum(len(c.columns["id"][f]) - LIST for c in (top, bottom, near)
                                                   for f in range(len(decoder))))}
