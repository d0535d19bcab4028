"""Networks as people write them, small and in plain torch: nothing here knows of FedAli."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """ResNet's block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        same = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += same
        return self.relu(out)


class ResNet(nn.Module):
    """ResNet-18 where ``blocks`` is (2, 2, 2, 2) and ``width`` 64."""

    def __init__(self, channels: int = 3, width: int = 64, blocks=(2, 2, 2, 2), classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before, stages = width, []
        for number, count in enumerate(blocks):
            after = width * 2**number
            first = BasicBlock(before, after, 2 if number else 1)
            stages.append(nn.Sequential(first, *(BasicBlock(after, after, 1) for _ in range(count - 1))))
            before = after
        self.layers = nn.ModuleList(stages)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.layers:
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: wide inside, a convolution for each channel there."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            *(nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNet(nn.Module):
    """MobileNetV2 with few blocks."""

    def __init__(self, channels: int = 3, width: int = 8, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU6(inplace=True)),
            InvertedResidual(width, width, 1, 1),
            InvertedResidual(width, 2 * width, 2, 6),
            InvertedResidual(2 * width, 2 * width, 1, 6),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Attention(nn.Module):
    """As timm has it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """A transformer's, norms first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with a class token."""

    def __init__(self, channels=3, size=8, patch=4, dim=16, depth=2, heads=2, classes=1000) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(channels, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Encoder(nn.Module):
    """torch's own transformer layers over windows."""

    def __init__(self, channels: int = 6, dim: int = 16, heads: int = 2, classes: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, dim)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """A GRU or an LSTM over windows [B, T, channels]."""

    def __init__(
        self, kind: str, channels: int = 6, hidden: int = 8, layers: int = 1, classes: int = 6
    ) -> None:
        super().__init__()
        make = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.rnn = make(channels, hidden, layers, batch_first=True, dropout=0.1 if layers > 1 else 0.0)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class ResNet1d(nn.Module):
    """Residual convolutions over windows [B, T, channels]."""

    def __init__(self, channels: int = 6, width: int = 8, blocks: int = 2, classes: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv1d(channels, width, 7, 2, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
            nn.MaxPool1d(3, 2, 1),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv1d(width, width, 5, 1, 2, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)),
                *(nn.Conv1d(width, width, 5, 1, 2, bias=False), nn.BatchNorm1d(width)),
            )
            for _ in range(blocks)
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.transpose(1, 2))
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.fc(F.adaptive_avg_pool1d(x, 1).squeeze(-1))


class DeepConvLSTM(nn.Module):
    """Ordonez and Roggen 2016: convolutions along time for each channel, then two LSTMs."""

    def __init__(self, channels: int = 6, filters: int = 8, hidden: int = 8, classes: int = 6) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, filters, (5, 1))]
        convolutions += [nn.Conv2d(filters, filters, (5, 1)) for _ in range(3)]
        self.convolutions = nn.ModuleList(convolutions)
        self.lstm = nn.LSTM(filters * channels, hidden, 2, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        x = x.permute(0, 2, 1, 3).flatten(2)
        return self.fc(self.dropout(self.lstm(x)[0])[:, -1])


IMAGE, WINDOW = (3, 8, 8), (24, 6)
SMALL = {
    "resnet18": (lambda: ResNet(width=4, blocks=(1, 1)), IMAGE),
    "mobilenetv2": (lambda: MobileNet(width=4), IMAGE),
    "vit": (ViT, IMAGE),
    "encoder": (Encoder, (8, 6)),
    "gru": (lambda: Recurrent("gru", layers=2), (8, 6)),
    "lstm": (lambda: Recurrent("lstm"), (8, 6)),
    "resnet1d": (lambda: ResNet1d(blocks=1), WINDOW),
    "deepconvlstm": (lambda: DeepConvLSTM(filters=4), WINDOW),
}
