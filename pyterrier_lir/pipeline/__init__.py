"""What a user puts into a PyTerrier pipeline."""

from .bi_encoder import LIRBiEncoder
from .reranker import LIRReRanker
from .retrieval import LIRIndexer, LIRRetriever
from .trainable import Trainable

__all__ = ["LIRBiEncoder", "LIRIndexer", "LIRReRanker", "LIRRetriever", "Trainable"]
