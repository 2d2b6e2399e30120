"""Writes what is made from the chart's values.yaml: the table in its README.md, and values.schema.json.

    python3 tools/chart_docs.py            writes both
    python3 tools/chart_docs.py --check    exits with 1 where one is stale

The table has each key with its comment and its default. The schema takes what the gateway knows from docs/config.schema.json,
which is itself made from its code, and adds the chart's own keys as chart_keys.py has them; descriptions are the comments.
"""

import json
import re
import sys
from pathlib import Path

import yaml

from chart_keys import KEYS

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm/sluicegate"
GATEWAY = ROOT / "docs/config.schema.json"
START, END = "<!-- values: made by tools/chart_docs.py from values.yaml -->", "<!-- end of values -->"

# The sections of sluicegate.yaml that the chart puts into the file; all others reach the gateway through `config`. Of these, `state` has
# keys of the chart's own.
IN_FILE = ("models", "batching", "registries", "webhooks")

# `key: value` or `key:` at some depth, and what stands behind `# `.
KEY = re.compile(r"^( *)([A-Za-z0-9_]+):(?: |$)")
COMMENT = re.compile(r"^ *# ?(.*)$")
HEADING = re.compile(r"^# -- (.*?)[:.]? .*--$|^# -- (.*?) --$")


def comments(text: str) -> dict[tuple[str, ...], str]:
    """Each commented key by its path, with its comment, in the order of the file. Deeper keys of a value that is free, such
    as a security context, have none; a heading is a path of one word that begins with `#`."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    pending: list[str] = []
    for line in text.splitlines():
        if heading := HEADING.match(line):
            found[("# " + (heading[1] or heading[2]),)] = line.strip("# -")
            pending = []
        elif comment := COMMENT.match(line):
            pending.append(comment[1])
        elif key := KEY.match(line):
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            if pending:
                found[tuple(path)] = " ".join(pending)
            pending = []
        else:
            pending = []
    return found


def lookup(values: object, path: tuple[str, ...]) -> object:
    for key in path:
        values = values[key]
    return values


def is_group(path: tuple[str, ...], said: dict) -> bool:
    """Whether deeper keys have comments of their own."""
    return any(other[: len(path)] == path and len(other) > len(path) for other in said)


def table(values: dict, said: dict[tuple[str, ...], str]) -> str:
    lines: list[str] = []
    for path, comment in said.items():
        if path[0].startswith("# "):
            title, _, rest = comment.partition(": ")
            lines += [
                "",
                f"### {title}",
                "",
                *([rest[0].upper() + rest[1:], ""] if rest else []),
                "| key | what it is | default |",
                "|---|---|---|",
            ]
            continue
        group = is_group(path, said)
        default = "" if group else "`" + json.dumps(lookup(values, path), ensure_ascii=False).replace("|", "\\|") + "`"
        lines.append(f"| `{'.'.join(path)}` | {comment.replace('|', chr(92) + '|')} | {default} |")
    return "\n".join(lines).strip()


def described(schema: dict, path: tuple[str, ...], said: dict[tuple[str, ...], str]) -> dict:
    """The schema of a chart's key with the comments of values.yaml as descriptions."""
    schema = dict(schema)
    if path in said:
        schema["description"] = said[path]
    if "properties" in schema and schema["type"] == "object":
        schema["properties"] = {key: described(value, (*path, key), said) for key, value in schema["properties"].items()}
    return schema


def schema(values: dict, said: dict[tuple[str, ...], str], gateway: dict) -> dict:
    """What a user may set: the gateway's sections where the chart has them, and the chart's own keys."""
    sections = gateway["properties"]
    definitions = json.loads(json.dumps(gateway["$defs"]))
    del definitions["State"]
    for name in ("Http", "Grpc", "Ops"):
        del definitions[name]["properties"]["address"]  # listenHost and containerPorts say it
    own = {key: described(value, (key,), said) for key, value in KEYS.items()}
    models = {**sections["models"], "minItems": 1, "type": ["array", "null"]}
    static = {name: section for name, section in sections.items() if name not in (*IN_FILE, "state")}
    config = {"type": "object", "additionalProperties": False, "properties": static}
    registries = {**sections["registries"], "minProperties": 1, "propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,63}$"}}
    of_gateway = {
        "models": models,
        "batching": sections["batching"],
        "registries": registries,
        "webhooks": sections["webhooks"],
        "config": {**config, "description": said[("config",)]},
    }
    for key in IN_FILE:
        of_gateway[key] = {**of_gateway[key], "description": said[(key,)]}
    properties = {key: {**of_gateway, **own}[key] for key in values}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart sluicegate",
        "$comment": "Made by tools/chart_docs.py from docs/config.schema.json, tools/chart_keys.py and values.yaml.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": definitions,
    }


def made() -> dict[Path, str]:
    """The files and what has to be in them."""
    text = (CHART / "values.yaml").read_text()
    values, said = yaml.safe_load(text), comments(text)
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition(START)
    _, _, after = rest.partition(END)
    gateway = json.loads(GATEWAY.read_text())
    return {
        readme: f"{before}{START}\n\n{table(values, said)}\n\n{END}{after}",
        CHART / "values.schema.json": json.dumps(schema(values, said, gateway), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    stale = [path for path, text in made().items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make chart`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in made().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
