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
    from .model_configs import (
        ColConfig,
        DprConfig,
        MonoConfig,
        MvrConfig,
        SetEncoderConfig,
        SpladeConfig,
        UniCoilConfig,
    )
    from .models import BiEncoderModel, CrossEncoderModel, load_model
    from .pipeline import LIRBiEncoder, LIRIndexer, LIRReRanker, LIRRetriever, Trainable
    from .training import (
        BiEncoderModule,
        CrossEncoderModule,
        ExportCallback,
        FaissFlatIndexer,
        IndexCallback,
        LightningIRDataModule,
        LightningIRTrainer,
        RankCallback,
        RegisterLocalDatasetCallback,
        ReRankCallback,
        Schedule,
        SearchCallback,
    )
    from .training.objectives import (
        ApproxMRR,
        ApproxNDCG,
        ApproxRankMSE,
        BinaryCrossEntropy,
        ConstantMarginMSE,
        ContrastiveLocalLoss,
        EmbeddingDistillation,
        FLOPSRegularization,
        InBatchCrossEntropy,
        InfoNCE,
        KLDivergence,
        L1Regularization,
        L2Regularization,
        LambdaLoss,
        ListMLE,
        ListNet,
        Matryoshka,
        MeanSquaredError,
        NeuralMRR,
        NeuralNDCG,
        PearsonCorrelation,
        RankNet,
        ScoreBasedInBatchCrossEntropy,
        SupervisedMarginMSE,
    )
    from .training.schedulers import (
        ConstantLRSchedulerWithLinearWarmup,
        GenericConstantSchedulerWithLinearWarmup,
        GenericConstantSchedulerWithQuadraticWarmup,
        LinearLRSchedulerWithLinearWarmup,
    )

__all__ = [
    "ApproxMRR",
    "ApproxNDCG",
    "ApproxRankMSE",
    "BiEncoderConfig",
    "BiEncoderModel",
    "BiEncoderModule",
    "BinaryCrossEntropy",
    "ColConfig",
    "ConstantLRSchedulerWithLinearWarmup",
    "ConstantMarginMSE",
    "ContrastiveLocalLoss",
    "CrossEncoderConfig",
    "CrossEncoderModel",
    "CrossEncoderModule",
    "DocDataset",
    "DocumentationDataset",
    "DprConfig",
    "EmbeddingDistillation",
    "ExportCallback",
    "FLOPSRegularization",
    "FaissFlatIndexConfig",
    "FaissFlatIndexer",
    "FaissHNSWIndexConfig",
    "FaissIVFIndexConfig",
    "FaissIVFPQIndexConfig",
    "FaissPQIndexConfig",
    "FaissSearchConfig",
    "GenericConstantSchedulerWithLinearWarmup",
    "GenericConstantSchedulerWithQuadraticWarmup",
    "InBatchCrossEntropy",
    "IndexCallback",
    "IndexUnion",
    "InfoNCE",
    "KLDivergence",
    "L1Regularization",
    "L2Regularization",
    "LIRBiEncoder",
    "LIRDenseIndex",
    "LIRIndex",
    "LIRIndexer",
    "LIRMultiVectorIndex",
    "LIRReRanker",
    "LIRRetriever",
    "LIRSparseIndex",
    "LambdaLoss",
    "LightningIRDataModule",
    "LightningIRTrainer",
    "LinearLRSchedulerWithLinearWarmup",
    "ListMLE",
    "ListNet",
    "Matryoshka",
    "MeanSquaredError",
    "MonoConfig",
    "MvrConfig",
    "NeuralMRR",
    "NeuralNDCG",
    "PearsonCorrelation",
    "PlaidIndexConfig",
    "PlaidSearchConfig",
    "QueryDataset",
    "RankCallback",
    "RankNet",
    "ReRankCallback",
    "RegisterLocalDatasetCallback",
    "RunDataset",
    "Schedule",
    "ScoreBasedInBatchCrossEntropy",
    "SearchCallback",
    "SeismicIndexConfig",
    "SeismicSearchConfig",
    "SetEncoderConfig",
    "SpladeConfig",
    "SupervisedMarginMSE",
    "TorchDenseIndexConfig",
    "TorchDenseSearchConfig",
    "TorchSparseIndexConfig",
    "TorchSparseSearchConfig",
    "Trainable",
    "TupleDataset",
    "UniCoilConfig",
    "load_model",
    "mine_negatives",
    "open_index",
    "register_local_dataset",
]

_HOMES = {
    "config": ("BiEncoderConfig", "CrossEncoderConfig"),
    "data": ("DocDataset", "QueryDataset", "RunDataset", "TupleDataset", "mine_negatives"),
    "data.documentation": ("DocumentationDataset",),
    "data.local_datasets": ("register_local_dataset",),
    "indexes": ("IndexUnion", "LIRDenseIndex", "LIRIndex", "LIRMultiVectorIndex", "LIRSparseIndex", "open_index"),
    "indexes.configs": (
        "FaissFlatIndexConfig",
        "FaissHNSWIndexConfig",
        "FaissIVFIndexConfig",
        "FaissIVFPQIndexConfig",
        "FaissPQIndexConfig",
        "FaissSearchConfig",
        "PlaidIndexConfig",
        "PlaidSearchConfig",
        "SeismicIndexConfig",
        "SeismicSearchConfig",
        "TorchDenseIndexConfig",
        "TorchDenseSearchConfig",
        "TorchSparseIndexConfig",
        "TorchSparseSearchConfig",
    ),
    "model_configs": (
        "ColConfig",
        "DprConfig",
        "MonoConfig",
        "MvrConfig",
        "SetEncoderConfig",
        "SpladeConfig",
        "UniCoilConfig",
    ),
    "models": ("BiEncoderModel", "CrossEncoderModel", "load_model"),
    "pipeline": ("LIRBiEncoder", "LIRIndexer", "LIRReRanker", "LIRRetriever", "Trainable"),
    "training": (
        "BiEncoderModule",
        "CrossEncoderModule",
        "ExportCallback",
        "FaissFlatIndexer",
        "IndexCallback",
        "LightningIRDataModule",
        "LightningIRTrainer",
        "RankCallback",
        "ReRankCallback",
        "RegisterLocalDatasetCallback",
        "Schedule",
        "SearchCallback",
    ),
    "training.objectives": (
        "ApproxMRR",
        "ApproxNDCG",
        "ApproxRankMSE",
        "BinaryCrossEntropy",
        "ConstantMarginMSE",
        "ContrastiveLocalLoss",
        "EmbeddingDistillation",
        "FLOPSRegularization",
        "InBatchCrossEntropy",
        "InfoNCE",
        "KLDivergence",
        "L1Regularization",
        "L2Regularization",
        "LambdaLoss",
        "ListMLE",
        "ListNet",
        "Matryoshka",
        "MeanSquaredError",
        "NeuralMRR",
        "NeuralNDCG",
        "PearsonCorrelation",
        "RankNet",
        "ScoreBasedInBatchCrossEntropy",
        "SupervisedMarginMSE",
    ),
    "training.schedulers": (
        "ConstantLRSchedulerWithLinearWarmup",
        "GenericConstantSchedulerWithLinearWarmup",
        "GenericConstantSchedulerWithQuadraticWarmup",
        "LinearLRSchedulerWithLinearWarmup",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("pyterrier-lir")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
