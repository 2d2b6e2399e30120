"""Draws the Grafana dashboards of the chart, helm/sluicegate/dashboards/*.json, from the tables of boards.py.

python3 tools/dashboards.py            writes them
python3 tools/dashboards.py --check    exits with 1 where one is stale
"""

import json
import sys
from pathlib import Path

from boards import ANNOTATIONS, BOARDS, POD, Board, Panel

FOLDER = Path(__file__).resolve().parents[1] / "helm/sluicegate/dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(made: Panel, number: int, x: int, y: int, width: int, height: int) -> dict:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend,
            **({"instant": True, "range": False, "format": "table"} if made.kind == "table" else {}),
        }
        for index, (query, legend) in enumerate(made.queries)
    ]
    return {
        "id": number,
        "type": made.kind,
        "title": made.title,
        "description": made.says,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": made.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if made.kind == "timeseries" else {},
        "targets": targets,
    }


def variable(name: str, query: str) -> dict:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def drawn(board: Board) -> dict:
    panels, y = [], 0

    def add(made: dict) -> None:
        panels.append(made)

    for row in board.rows:
        add(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        y += 1
        if row.stats:
            width = 24 // len(row.stats)
            for index, made in enumerate(row.stats):
                add(panel(made, len(panels) + 1, index * width, y, width, 4))
            y += 4
        for index in range(max(len(row.left), len(row.right))):
            for x, column in ((0, row.left), (12, row.right)):
                if index < len(column):
                    add(panel(column[index], len(panels) + 1, x, y, 12, 8))
            y += 8
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
        variable("namespace", "label_values(sluicegate_ready, namespace)"),
        variable("job", 'label_values(sluicegate_ready{namespace=~"$namespace"}, job)'),
    ]
    if board.has_model:
        variables.append(variable("model", f"label_values(sluicegate_live_version{{{POD}}}, model)"))
    annotations = [
        {
            "name": made.name,
            "enable": True,
            "iconColor": made.color,
            "datasource": SOURCE,
            "expr": made.query,
            "titleFormat": made.text,
            "step": "60s",
        }
        for made in ANNOTATIONS
    ]
    return {
        "uid": f"sluicegate-{board.name}",
        "title": board.title,
        "description": board.says,
        "tags": ["sluicegate"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": annotations},
        "panels": panels,
    }


def main() -> int:
    stale = 0
    for board in BOARDS:
        path, text = FOLDER / f"{board.name}.json", json.dumps(drawn(board), indent=1, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            print(f"{path.name} is stale: run `make chart`", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
