"""Documents with texts become documents with vectors, for whoever builds an index with a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..vectors import TokenVectors, Vectors
from .building import Document

Encode = Callable[[Iterator[str]], Iterator[Vectors]]


def encoded(stream: Iterator[Document], encode: Encode, field: str) -> Iterator[tuple[list[Document], Vectors]]:
    """The documents with their vectors, a part after the other; the next is read while the model runs.

    Args:
        stream: documents with `docno` and a text.
        encode: makes vectors of texts, a part after the other.
        field: where the text is.

    Raises:
        ValueError: for a document without a text, or vectors with NaN or infinite numbers.
    """
    waiting: deque[Document] = deque()

    def texts() -> Iterator[str]:
        for doc in stream:
            if not isinstance(doc.get(field), str):
                raise ValueError(
                    f"Document {doc.get('docno')!r} has {field}={doc.get(field)!r} instead of a string; its "
                    f"fields: {', '.join(doc)}. Choose another with text_field=."
                )
            waiting.append(doc)
            yield doc[field]

    for vectors in encode(texts()):
        count = vectors.shape[0] if hasattr(vectors, "shape") else len(vectors)
        docs = [waiting.popleft() for _ in range(count)]
        check_finite(vectors, [str(doc.get("docno")) for doc in docs])
        yield docs, vectors


def check_finite(vectors: Vectors, docnos: Sequence[str]) -> None:
    """Refuse what a broken model makes of these documents (or queries).

    Raises:
        ValueError: for NaN and infinite numbers.
    """
    numbers = vectors.values if isinstance(vectors, TokenVectors) else getattr(vectors, "data", vectors)
    if isinstance(vectors, np.ndarray):
        numbers = vectors
    if np.isfinite(numbers).all():
        return
    row = int((~np.isfinite(vectors)).any(axis=1).argmax()) if isinstance(vectors, np.ndarray) else 0
    raise ValueError(
        f"The model makes NaN or infinite numbers, of docno {docnos[row]!r} or one behind it. "
        "In fp16, take bf16 or float32."
    )
