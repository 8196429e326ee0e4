"""What a user puts into a PyTerrier pipeline."""

from .bi_encoder import LIRBiEncoder
from .reranker import LIRReRanker
from .retrieval import LIRIndexer, LIRRetriever

__all__ = ["LIRBiEncoder", "LIRIndexer", "LIRReRanker", "LIRRetriever"]
