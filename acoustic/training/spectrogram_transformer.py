"""The Audio Spectrogram Transformer (Gong, Chung, Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021) as a
teacher: a folder that `transformers` has saved, with config.json, preprocessor_config.json and safetensors.

Nothing is fetched and no pickle is opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import SettingsError
from .teachers import Plugged

KIND = "audio-spectrogram-transformer"


class SpectrogramTransformer:
    """`mel` and `network` apart, so that the network alone can be converted: the mel is numpy's."""

    def __init__(self, folder: Path) -> None:
        from transformers import ASTFeatureExtractor, ASTForAudioClassification

        self.extractor = ASTFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model = ASTForAudioClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        self.model = model.eval().requires_grad_(False)  # with gradients it could not be traced
        self.tags = tuple(str(self.model.config.id2label[i]) for i in range(self.model.config.num_labels))

    def mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, n) -> (B, frames, n_mels), normalised; longer waveforms than the network's frames are cut."""
        rate = self.extractor.sampling_rate
        features = self.extractor(list(waveform.numpy()), sampling_rate=rate)["input_values"]
        return torch.from_numpy(np.stack(features).astype(np.float32))

    @torch.inference_mode()
    def network(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, frames, n_mels) -> logits (B, T) and the mean (B, D) of the class and the distillation token."""
        pooled = self.model.audio_spectrogram_transformer(mel).pooler_output
        return self.model.classifier(pooled), pooled

    def __call__(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network(self.mel(waveform))


def load_folder(folder: Path) -> Plugged:
    """The teacher in `folder`. SettingsError where it holds no such model, or one that is not in safetensors."""
    from transformers import AutoConfig

    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError) as error:
        raise SettingsError(f"no teacher in {folder}: {_first_line(error)}", _HINT) from None
    if kind != KIND:
        raise SettingsError(f"the model in {folder} is a {kind!r}, not an {KIND!r}", _HINT)
    for needed, what in (("preprocessor_config.json", "how it hears"), ("*.safetensors", "weights as safetensors")):
        if not any(folder.glob(needed)):
            raise SettingsError(f"the model in {folder} has no {needed}: {what}", _HINT)
    try:
        teacher = SpectrogramTransformer(folder)
    except Exception as error:  # a torn file, other shapes: safetensors and transformers have errors of their own
        raise SettingsError(f"the model in {folder} cannot be loaded: {_first_line(error)}", _HINT) from error
    return Plugged(teacher, teacher.extractor.sampling_rate, teacher.tags, teacher.extractor.max_length)


_HINT = "A teacher's folder is what save_pretrained wrote of an ASTForAudioClassification and its feature extractor."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
