"""What a user puts into a PyTerrier pipeline."""

from .reranker import LIRReRanker

__all__ = ["LIRReRanker"]
