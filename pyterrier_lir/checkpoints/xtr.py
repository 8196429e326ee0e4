"""XTR (arXiv:2304.01982): the encoder of a T5 with a projection in 2_Dense/, and no pooling.

Its score is the mean over the query's tokens (equation 1).  In approximate retrieval (the engine `plaid`),
similarities of tokens that were not retrieved are imputed (equation 5); elsewhere all are computed.
"""

from __future__ import annotations

from torch import nn

from ..config import BiEncoderConfig, Kind
from .checkpoint import Checkpoint, ReadOptions, encoder_class, linear
from .files import Files

_DENSE = "2_Dense"


def why_not(files: Files) -> str | None:
    if files.config.get("model_type") not in ("t5", "mt5", "umt5"):
        return "no T5 in config.json"
    dense = (files.folder / _DENSE).is_dir() and not (files.folder / "1_Pooling").is_dir()
    return None if dense else f"no {_DENSE}/ without 1_Pooling/"


def kinds(files: Files) -> tuple[Kind, ...]:
    return ("multi_vector",)


def read(files: Files, options: ReadOptions) -> Checkpoint:
    """Read an XTR model.

    Raises:
        ValueError: if the projection is missing.
    """
    weight = files.tensors(["linear.weight"], _DENSE, options.dtype).get("linear.weight")
    if weight is None:
        raise ValueError(f"{files.name} lacks linear.weight in {_DENSE}/, the projection of an XTR model.")
    backbone_config = files.backbone_config()
    config = BiEncoderConfig(
        query_length=32, doc_length=512, projection="linear_no_bias", query_pooling_strategy=None,
        doc_pooling_strategy=None, normalization_strategy="l2",
        query_aggregation_function="mean", imputation_strategy="min",
    )  # fmt: skip
    backbone = files.backbone(encoder_class(backbone_config), backbone_config, options.dtype)
    return Checkpoint(
        config, backbone, files.tokenizer(backbone_config), nn.Sequential(linear(weight, None)), files.name
    )
