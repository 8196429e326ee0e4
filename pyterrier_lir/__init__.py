"""Neural retrieval models as PyTerrier transformers.

    bm25 >> pt.text.get_text(dataset) >> LIRReRanker("webis/monoelectra-base")

Names are imported at their first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import BiEncoderConfig, CrossEncoderConfig
    from .data import DocDataset, QueryDataset, RunDataset, TupleDataset, mine_negatives
    from .data.documentation import DocumentationDataset
    from .data.local_datasets import register_local_dataset
    from .indexes import IndexUnion, LIRDenseIndex, LIRIndex, LIRMultiVectorIndex, LIRSparseIndex, open_index
    from .indexes.configs import (
        FaissFlatIndexConfig,
        FaissHNSWIndexConfig,
        FaissIVFIndexConfig,
        FaissIVFPQIndexConfig,
        FaissPQIndexConfig,
        FaissSearchConfig,
        PlaidIndexConfig,
        PlaidSearchConfig,
        SeismicIndexConfig,
        SeismicSearchConfig,
        TorchDenseIndexConfig,
        TorchDenseSearchConfig,
        TorchSparseIndexConfig,
        TorchSparseSearchConfig,
    )
    from .models import BiEncoderModel, CrossEncoderModel, load_model
    from .pipeline import LIRBiEncoder, LIRIndexer, LIRReRanker, LIRRetriever, Trainable
    from .training import (
        BiEncoderModule,
        CrossEncoderModule,
        FaissFlatIndexer,
        IndexCallback,
        LightningIRDataModule,
        LightningIRTrainer,
        RankCallback,
        RegisterLocalDatasetCallback,
        ReRankCallback,
        SearchCallback,
    )

__all__ = [
    "BiEncoderConfig",
    "BiEncoderModel",
    "BiEncoderModule",
    "CrossEncoderConfig",
    "CrossEncoderModel",
    "CrossEncoderModule",
    "DocDataset",
    "DocumentationDataset",
    "FaissFlatIndexConfig",
    "FaissFlatIndexer",
    "FaissHNSWIndexConfig",
    "FaissIVFIndexConfig",
    "FaissIVFPQIndexConfig",
    "FaissPQIndexConfig",
    "FaissSearchConfig",
    "IndexCallback",
    "IndexUnion",
    "LIRBiEncoder",
    "LIRDenseIndex",
    "LIRIndex",
    "LIRIndexer",
    "LIRMultiVectorIndex",
    "LIRReRanker",
    "LIRRetriever",
    "LIRSparseIndex",
    "LightningIRDataModule",
    "LightningIRTrainer",
    "PlaidIndexConfig",
    "PlaidSearchConfig",
    "QueryDataset",
    "RankCallback",
    "ReRankCallback",
    "RegisterLocalDatasetCallback",
    "RunDataset",
    "SearchCallback",
    "SeismicIndexConfig",
    "SeismicSearchConfig",
    "TorchDenseIndexConfig",
    "TorchDenseSearchConfig",
    "TorchSparseIndexConfig",
    "TorchSparseSearchConfig",
    "Trainable",
    "TupleDataset",
    "load_model",
    "mine_negatives",
    "open_index",
    "register_local_dataset",
]

_HOME = {
    "BiEncoderConfig": "config",
    "BiEncoderModel": "models",
    "BiEncoderModule": "training",
    "CrossEncoderConfig": "config",
    "CrossEncoderModel": "models",
    "CrossEncoderModule": "training",
    "DocDataset": "data",
    "DocumentationDataset": "data.documentation",
    "FaissFlatIndexConfig": "indexes.configs",
    "FaissFlatIndexer": "training",
    "FaissHNSWIndexConfig": "indexes.configs",
    "FaissIVFIndexConfig": "indexes.configs",
    "FaissIVFPQIndexConfig": "indexes.configs",
    "FaissPQIndexConfig": "indexes.configs",
    "FaissSearchConfig": "indexes.configs",
    "IndexCallback": "training",
    "IndexUnion": "indexes",
    "LIRBiEncoder": "pipeline",
    "LIRDenseIndex": "indexes",
    "LIRIndex": "indexes",
    "LIRIndexer": "pipeline",
    "LIRMultiVectorIndex": "indexes",
    "LIRReRanker": "pipeline",
    "LIRRetriever": "pipeline",
    "LIRSparseIndex": "indexes",
    "LightningIRDataModule": "training",
    "LightningIRTrainer": "training",
    "PlaidIndexConfig": "indexes.configs",
    "PlaidSearchConfig": "indexes.configs",
    "QueryDataset": "data",
    "RankCallback": "training",
    "ReRankCallback": "training",
    "RegisterLocalDatasetCallback": "training",
    "RunDataset": "data",
    "SearchCallback": "training",
    "SeismicIndexConfig": "indexes.configs",
    "SeismicSearchConfig": "indexes.configs",
    "TorchDenseIndexConfig": "indexes.configs",
    "TorchDenseSearchConfig": "indexes.configs",
    "TorchSparseIndexConfig": "indexes.configs",
    "TorchSparseSearchConfig": "indexes.configs",
    "Trainable": "pipeline",
    "TupleDataset": "data",
    "load_model": "models",
    "mine_negatives": "data",
    "open_index": "indexes",
    "register_local_dataset": "data.local_datasets",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("pyterrier-lir")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
