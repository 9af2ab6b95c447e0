#!/usr/bin/env python3
"""What circuit-tracer's own classes (0.5.0) ask of a graph's file: their JSON schema, with everything but names, kinds and what is required left
out. `python make_viewer.py` with circuit-tracer."""
import json
import os

from circuit_tracer.frontend.graph_models import Model

KEPT = {"$defs", "$ref", "properties", "required", "type", "items", "anyOf"}


def bare(schema, names=False):
    """names: the keys are those of the file."""
    if isinstance(schema, list):
        return [bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: bare(value, key in ("properties", "$defs") and not names) for key, value in schema.items() if names or key in KEPT}


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "viewer.json"), "w") as out:
    json.dump(bare(Model.model_json_schema()), out, indent=1, sort_keys=True)
    out.write("\n")
