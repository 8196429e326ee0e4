"""What a user puts into a PyTerrier pipeline."""

from .bi_encoder import LIRBiEncoder
from .reranker import LIRReRanker

__all__ = ["LIRBiEncoder", "LIRReRanker"]
