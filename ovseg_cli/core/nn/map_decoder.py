"""PixelCLIP's decoder of similarity maps, in plain form (the fast form takes its place)."""

from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Two convolutions with norms."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.double_conv(x)


class MapDecoder(nn.Module):
    """Each map alone, four times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, 64, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(64, 64, 2, stride=2)
        self.conv1 = DoubleConv(64, 4)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.conv2 = DoubleConv(32, 2)
        self.proj = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, similarity: Tensor) -> Tensor:
        """Return (B, k, 4h, 4w) of (B, k, h, w)."""
        x = self.conv0(similarity.flatten(0, 1)[:, None])
        x = self.proj(self.conv2(self.up2(self.conv1(self.up1(x)))))
        return x[:, 0].unflatten(0, similarity.shape[:2])
