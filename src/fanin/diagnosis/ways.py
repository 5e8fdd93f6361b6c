"""Ways through a graph: chains of operations that follow each other, and those that no way leads around."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fanin.diagnosis.graph import Graph, Op, activation_inputs

_JOINS = frozenset(["Cat", "Stack", "Add", "Sub"])  # data without a gradient may come in here


def chains(graph: Graph, chosen: Collection[Op]) -> Iterator[list[Op]]:
    """For each chosen operation that none precedes, the way onward that leads through most of them; inputs first.

    A plain network has one. Branches that run side by side have one each; what they share is in all of them.
    """
    onward: dict[Op, tuple[int, Op | None]] = {}  # how many of them come after an operation, and the next of them
    for op in reversed(graph.ops):  # those that use a result come before the one that makes it
        count, following = onward.setdefault(op, (0, None))
        here = (count + 1, op) if op in chosen else (count, following)
        for parent in op.parents:
            if here[0] > onward.get(parent, (-1, None))[0]:
                onward[parent] = here
    later: set[Op] = set()
    for op in graph.ops:
        if any(parent in chosen or parent in later for parent in op.parents):
            later.add(op)
        elif op in chosen:
            chain, following = [op], onward[op][1]
            while following is not None:
                chain.append(following)
                following = onward[following][1]
            yield chain


def cuts(graph: Graph) -> Iterator[Op]:
    """Operations on which all that the outputs know of an example must pass, outputs first.

    What stands before the first operation that takes in data is none: data may enter behind it too.
    """
    pending = {graph.output}
    for op in reversed(graph.behind()):
        if op not in pending:
            continue
        pending.discard(op)
        if not pending:
            yield op
        below = activation_inputs(graph, op)
        if not below or (op.name in _JOINS and any(node is None for node, _ in op.node.next_functions)):
            return
        pending.update(below)
