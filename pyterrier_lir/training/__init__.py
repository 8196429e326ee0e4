"""Fine-tuning with PyTorch Lightning: the only room that imports it."""

from __future__ import annotations

from .callbacks import CurvesCallback, ExportCallback
from .datamodule import LightningIRDataModule
from .module import BiEncoderModule, CrossEncoderModule
from .refreshing import RefreshNegatives
from .schedules import Schedule
from .trainer import LightningIRTrainer
from .validation import RetrievalValidation

__all__ = [
    "BiEncoderModule",
    "CrossEncoderModule",
    "CurvesCallback",
    "ExportCallback",
    "LightningIRDataModule",
    "LightningIRTrainer",
    "RefreshNegatives",
    "RetrievalValidation",
    "Schedule",
]
