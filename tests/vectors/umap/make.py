#!/usr/bin/env python3
"""What umap-learn makes of 300 directions of 24 numbers: eight groups of 30 around random directions, 60 on their own; two of them are equal,
as tied rows are. Cosine distances, n_neighbors 15 (each point is its own first), min_dist 0.1, spread 1.

    directions [300, 24]
    index, distance [300, 14]     exact nearest neighbours without the point itself (NumPy, float64), rounding (< 1e-6) taken for 0
    rho, sigma [300]              umap.umap_.smooth_knn_dist
    row, column, weight [edges]   umap.umap_.fuzzy_simplicial_set, by row and column
    spread, min_dist, a, b [4]    umap.umap_.find_ab_params
    quality [2]                   of umap-learn's layout: trustworthiness (sklearn, 10 neighbours), share of the 10 nearest neighbours that are
                                  among the 10 nearest in the plane; least of each over 5 seeds
    places [300, 2]               of its first seed, for the eye

`python make.py` with umap-learn 0.5.12, scikit-learn 1.9.1."""
import os

import numpy as np
import torch
import umap
from safetensors.torch import save_file
from sklearn.manifold import trustworthiness
from umap.umap_ import find_ab_params, fuzzy_simplicial_set, smooth_knn_dist

HERE = os.path.dirname(os.path.abspath(__file__))
N, D, K, SHOWN = 300, 24, 15, 10


def draw():
    rng = np.random.default_rng(152)
    groups = np.repeat(rng.normal(size=(8, D)), 30, axis=0) + 0.5 * rng.normal(size=(240, D))
    rows = np.concatenate([groups, rng.normal(size=(60, D))])
    rows[241] = rows[240]
    return rows.astype(np.float32)


def distances(rows):
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    d = 1 - unit @ unit.T
    d[d < 1e-6] = 0
    return d


def nearest(d, k):
    alone = d + np.where(np.eye(len(d)) > 0, np.inf, 0)
    index = np.argsort(alone, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(d, index, 1)


def quality(d, places):
    plane = np.linalg.norm(places[:, None] - places[None], axis=2)
    true, shown = nearest(d, SHOWN)[0], nearest(plane, SHOWN)[0]
    overlap = np.mean([len(set(a) & set(b)) / SHOWN for a, b in zip(true, shown)])
    return trustworthiness(d, places, n_neighbors=SHOWN, metric="precomputed"), overlap


def main():
    rows = draw()
    d = distances(rows)
    index, distance = nearest(d, K - 1)
    own = np.arange(N)[:, None]
    knn, knn_d = np.concatenate([own, index], 1).astype(np.int32), np.concatenate([0 * own, distance], 1).astype(np.float32)
    sigma, rho = smooth_knn_dist(knn_d, float(K))
    graph, _, _ = fuzzy_simplicial_set(rows, K, np.random.RandomState(0), "cosine", knn_indices=knn, knn_dists=knn_d)
    graph = graph.tocsr()
    graph.sort_indices()
    graph = graph.tocoo()
    curves = [(1.0, 0.1), (1.0, 0.0), (1.0, 0.5), (2.0, 0.25)]
    ab = [find_ab_params(s, m) for s, m in curves]
    layouts = [umap.UMAP(n_neighbors=K, metric="cosine", random_state=s, n_jobs=1).fit_transform(rows) for s in range(5)]
    qualities = np.array([quality(d, places) for places in layouts])
    print("trustworthiness, overlap of each seed:\n", qualities)
    save = {"directions": rows, "index": index.astype(np.int32), "distance": distance, "rho": rho, "sigma": sigma, "row": graph.row,
            "column": graph.col, "weight": graph.data, "spread": [s for s, _ in curves], "min_dist": [m for _, m in curves],
            "a": [x for x, _ in ab], "b": [x for _, x in ab], "quality": qualities.min(0), "places": layouts[0]}
    as_int = ("index", "row", "column")
    save_file({k: torch.tensor(np.asarray(v), dtype=torch.int32 if k in as_int else torch.float32).contiguous() for k, v in save.items()},
              os.path.join(HERE, "expected.safetensors"))


main()
