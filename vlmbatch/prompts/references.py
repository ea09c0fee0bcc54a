"""The references of a JSON Schema: those to other documents, and those that never end."""

from collections.abc import Iterator
from typing import Any

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA = frozenset(("enum", "const", "default", "examples"))
"""What is in these is no schema."""
_NAMED = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
)
"""The objects in these have a schema by each name, and are none."""
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_BY_NAME = ("dependentSchemas", "dependencies")

Node = dict[str, Any]


class References:
    """All references of a schema. JSON Pointers begin at the nearest object around them that has an `$id`."""

    def __init__(self, schema: Node) -> None:
        self._bases: dict[int, Node] = {}
        self._anchors: dict[str, list[Node]] = {}
        self._nodes: list[Node] = []
        waiting: list[tuple[Any, Node, bool]] = [(schema, schema, False)]
        while waiting:
            value, base, named = waiting.pop()
            if isinstance(value, list):
                waiting += [(child, base, False) for child in value]
            elif isinstance(value, dict):
                base = base if named else self._add(value, base)
                waiting += [
                    (child, base, not named and name in _NAMED)
                    for name, child in value.items()
                    if named or name not in _DATA
                ]

    def elsewhere(self) -> str | None:
        """A reference to another document."""
        return next((ref for node in self._nodes for ref in _refs(node) if not ref.startswith("#")), None)

    def endless(self) -> str | None:
        """A reference that leads to itself at the same place of the answer: the check would not end."""
        done = set[int]()
        for start in self._nodes:
            way = [("", start, self._same_place(start))] if id(start) not in done else []
            on_way = {id(start)}
            while way:
                ref, target = next(way[-1][2], ("", None))
                if target is None:
                    node = way.pop()[1]
                    on_way.discard(id(node))
                    done.add(id(node))
                elif id(target) in on_way:
                    return ref or next(ref for ref, _, _ in reversed(way) if ref)
                elif id(target) not in done:
                    on_way.add(id(target))
                    way.append((ref, target, self._same_place(target)))
        return None

    def _add(self, node: Node, base: Node) -> Node:
        """Note the object; returns the one at which the pointers in it begin."""
        named = node.get("$id", node.get("id"))
        if isinstance(named, str) and not named.startswith("#"):
            base = node
        self._bases[id(node)] = base
        self._nodes.append(node)
        for name in ("$anchor", "$dynamicAnchor"):
            if isinstance(node.get(name), str):
                self._anchors.setdefault(node[name], []).append(node)
        if isinstance(named, str) and named.startswith("#"):
            self._anchors.setdefault(named[1:], []).append(node)
        return base

    def _same_place(self, node: Node) -> Iterator[tuple[str, Node | None]]:
        """The schemas that this one applies to the same place, each with its reference if there is one."""
        for ref in _refs(node):
            for target in self._targets(ref, self._bases[id(node)]):
                yield ref, target
        children = [child for name in _LISTS if isinstance(node.get(name), list) for child in node[name]]
        children += [node.get(name) for name in _SINGLE]
        children += [c for name in _BY_NAME if isinstance(node.get(name), dict) for c in node[name].values()]
        for child in children:
            if isinstance(child, dict) and id(child) in self._bases:
                yield "", child

    def _targets(self, ref: str, base: Node) -> list[Node]:
        if ref.startswith("#/"):
            found = _at(base, ref[2:])
            return [found] if isinstance(found, dict) and id(found) in self._bases else []
        return [base] if ref == "#" else self._anchors.get(ref[1:], [])


def _refs(node: Node) -> list[str]:
    return [node[name] for name in _REFERENCES if isinstance(node.get(name), str)]


def _at(value: Any, pointer: str) -> Any:
    """What a JSON Pointer leads to; None if there is nothing."""
    from urllib.parse import unquote

    for step in unquote(pointer).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) < 10:
            value = dict(enumerate(value)).get(int(name))
        else:
            return None
    return value
