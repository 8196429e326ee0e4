"""Fine-tuning and inference with PyTorch Lightning: the only room that imports it."""

from __future__ import annotations

from lightning import seed_everything

from .callbacks import CurvesCallback, ExportCallback
from .datamodule import LightningIRDataModule
from .inference import FaissFlatIndexer, Indexer
from .inference_callbacks import (
    IndexCallback,
    RankCallback,
    RegisterLocalDatasetCallback,
    ReRankCallback,
    SearchCallback,
)
from .module import BiEncoderModule, CrossEncoderModule
from .refreshing import RefreshNegatives
from .schedulers import (
    ConstantLRSchedulerWithLinearWarmup,
    GenericConstantSchedulerWithLinearWarmup,
    GenericConstantSchedulerWithQuadraticWarmup,
    LinearLRSchedulerWithLinearWarmup,
)
from .schedules import Schedule
from .trainer import LightningIRTrainer
from .validation import RetrievalValidation

__all__ = [
    "BiEncoderModule",
    "ConstantLRSchedulerWithLinearWarmup",
    "CrossEncoderModule",
    "CurvesCallback",
    "ExportCallback",
    "FaissFlatIndexer",
    "GenericConstantSchedulerWithLinearWarmup",
    "GenericConstantSchedulerWithQuadraticWarmup",
    "IndexCallback",
    "Indexer",
    "LightningIRDataModule",
    "LightningIRTrainer",
    "LinearLRSchedulerWithLinearWarmup",
    "RankCallback",
    "ReRankCallback",
    "RefreshNegatives",
    "RegisterLocalDatasetCallback",
    "RetrievalValidation",
    "Schedule",
    "SearchCallback",
    "seed_everything",
]
