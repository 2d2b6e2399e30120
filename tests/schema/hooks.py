"""Loaded by schemathesis: counts the requests, and gives them a model and a version that are served where told to."""

import json
import os
from collections import Counter
from pathlib import Path

import schemathesis

COUNTS = Path(os.environ["SCHEMA_COUNTS"])
SERVED = json.loads(os.environ.get("SCHEMA_SERVED", "null"))

counts: Counter[str] = Counter()


@schemathesis.hook
def after_call(context, case, response) -> None:
    counts[f"{case.method} {case.path} {response.status_code}"] += 1
    COUNTS.write_text(json.dumps(counts))


if SERVED:

    @schemathesis.hook
    def map_path_parameters(context, path_parameters):
        """Nobody draws a model's name by chance: without one that is served, all that is seen is 404."""
        if path_parameters and isinstance(path_parameters.get("model"), str):
            model, version = SERVED[len(path_parameters["model"]) % len(SERVED)]
            path_parameters["model"] = model
            if "version" in path_parameters:
                path_parameters["version"] = version
        return path_parameters
