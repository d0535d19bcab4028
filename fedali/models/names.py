"""What models are called."""

from typing import Final

MODEL_NAMES: Final = ("mlp", "cnn1d", "cnn2d", "hart")
