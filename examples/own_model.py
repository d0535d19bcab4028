"""A network of your own: what FedAli finds of it, and a comparison of methods on it by its name.

python own_model.py                                            # in the folder of this file
fedali simulate digits --set model.name=own_model:Net          # the same from a shell
"""

from torch import Tensor, nn

from fedali import adapt
from fedali_simulations import simulate


class Net(nn.Module):
    """A convolution with batch normalisation, one for each channel, and a linear layer."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU6(inplace=True)
        )
        self.depthwise = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 1, 8, 8]."""
        x = self.pool(self.depthwise(self.stem(x)).relu()).flatten(1)
        return self.fc(self.dropout(x))


if __name__ == "__main__":
    print(adapt(Net(), alp_at="depthwise", trainable=["fc.*", "norms"]).report((1, 8, 8), 10))
    settings = ["model.name=own_model:Net", "model.options.width=8", "methods=fedali,fedavg", "seeds=1"]
    results = simulate(
        "digits", overrides=[*settings, "training.engine=loop", "partition.clients=5"], rounds=2
    )
    print(results.table[["method", "measure", "accuracy"]])
