"""The graph of what was computed from what, and the walk back through it. docs/autograd.md builds it step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv.backend import Array
from tinyadv.shapes import Shape, broadcast_axes

Vertex = Any  # a Node, or a leaf: the Tensor itself


class Node:
    """One recorded operation, and for each argument that is a Tensor an edge: (vertex, vjp, its shape, its dtype).

    A vertex is the Node that computed the argument, or the leaf itself: no value stays alive that no vjp captured.
    """

    __slots__ = ("edges", "name")

    def __init__(self, name: str, edges: list[tuple[Vertex, Callable, Shape, np.dtype]] | None):
        self.name = name
        self.edges = edges


def walk_back(root: Vertex, g: Array, wanted: set | None = None, keep_graph: bool = False) -> dict:
    """{vertex: gradient} of the wanted vertices (None: of all leaves) below the root, whose own gradient is g."""
    order = topological_order(root)
    if wanted is None:
        wanted = {vertex for vertex in order if not isinstance(vertex, Node)}
    needed = set()  # the vertices through which the output depends on a wanted one
    for vertex in order:
        if vertex in wanted or any(parent in needed for parent, *_ in _edges(vertex)):
            needed.add(vertex)

    upstream, found = {root: g}, {}
    for vertex in reversed(order):
        g = upstream.pop(vertex, None)
        if vertex in wanted:
            found[vertex] = np.asarray(g) if isinstance(g, np.generic) else g  # the sum of two numbers is no array
        for parent, vjp, shape, dtype in _edges(vertex):
            if parent in needed:
                contribution = _unbroadcast(vjp(g), shape, dtype)
                if parent in upstream:
                    contribution = upstream[parent] + contribution
                elif parent in wanted and (contribution is g or contribution.base is not None):
                    contribution = contribution.copy("K")  # g itself or a view: what a caller gets is his own
                upstream[parent] = contribution
        if isinstance(vertex, Node) and not keep_graph:
            vertex.edges = None  # frees what the vjps have captured
    return found


def _edges(vertex: Vertex) -> list:
    if not isinstance(vertex, Node):
        return []
    if vertex.edges is None:
        raise RuntimeError(f"the graph below {vertex.name} was freed by an earlier gradients() or backward(): "
                           "run the forward pass again")
    return vertex.edges


def topological_order(root: Vertex) -> list:
    """Every vertex below the root, arguments before results; iterative, so depth is no limit."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        vertex, arguments_done = stack.pop()
        if arguments_done:
            order.append(vertex)
        elif vertex not in seen:
            seen.add(vertex)
            stack.append((vertex, True))
            stack.extend((parent, False) for parent, *_ in _edges(vertex))
    return order


def _unbroadcast(g: Array, shape: Shape, dtype: np.dtype) -> Array:
    """g summed over the axes along which an argument of `shape` was repeated: the adjoint of broadcasting."""
    if g.shape != shape:  # of a long first axis, NumPy adds up one row after the other: that needs more digits
        g = g.sum(axis=broadcast_axes(shape, g.shape), keepdims=True, dtype=np.float64).reshape(shape)
    return g.astype(dtype) if g.dtype.itemsize > dtype.itemsize else g  # a vjp may compute with more digits
