"""What the typed model says about its keys: the JSON schema, and the tables of config/README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from mars.config.experiment import Experiment, Strict

BEGIN, END = "<!-- written by `mars schema --markdown` -->\n", "<!-- end -->\n"
"""What stands around the key reference in config/README.md."""

YAML = {"object": "mapping", "array": "list", "string": "text"}
YAML |= {"integer": "integer", "number": "number", "boolean": "`true`, `false`"}


def json_schema() -> str:
    """The JSON schema of an experiment, for editors and for `config/schema.json`."""
    return json.dumps(Experiment.model_json_schema(), indent=2) + "\n"


def key_reference() -> str:
    """A table of keys for each section, in Markdown."""
    schema = Experiment.model_json_schema()
    parts = []
    for path, section in _sections(Experiment, ""):
        about = schema["$defs"].get(section.__name__, schema)
        rows = [_row(key, value) for key, value in about["properties"].items()]
        table = "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *rows])
        parts.append(f"### {path}\n\n{about['description']}\n\n{table}\n")
    return "\n".join(parts)


def _sections(annotation: Any, path: str) -> Iterator[tuple[str, type[Strict]]]:
    """The sections in the type of a key, with their paths; ``<name>`` stands for any name."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        source = annotation.model_fields.get("source")
        kinds = get_args(source.annotation) if source else ()
        suffix = f", source `{kinds[0]}`" if len(kinds) == 1 else ""
        yield f"`{path}`{suffix}" if path else "Top level", annotation
        for name, field in annotation.model_fields.items():
            yield from _sections(field.annotation, f"{path}.{name}".lstrip("."))
    else:
        container = getattr(annotation, "__origin__", None)
        path += ".<name>" * (container is dict) + "[]" * (container is list)
        for argument in get_args(annotation):
            yield from _sections(argument, path)


def _row(key: str, schema: dict[str, Any]) -> str:
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    kind = YAML.get(choices[0].get("type", ""), "section")
    inner = choices[0].get("items", choices[0])
    names = inner.get("enum", [inner["const"]] if "const" in inner else [])
    listed = ", ".join(f"`{name}`" for name in names)
    values = f"{kind} of {listed}" if kind == "list" and names else listed or kind
    default = json.dumps(schema.get("default", {}))
    shown = "" if default.startswith("{") else f"`{default}`"
    cells = [f"`{key}`", values, shown, schema["description"]]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
