"""IP-CLIP, frozen: the image encoder of MAFT (Jiao et al., NeurIPS 2023) with CLIP's own weights.

The baseline that MAFT starts from: one pass names all masks of a host or a generator, and hardly notices what a mask
leaves out. Class tokens are masked from the start layer on (core/clip/masked.py). Trained: nothing. Frozen: everything.

The MAFT repository calls this "FreeSeg" in its tables, since its frozen baseline reads masks this way; the paper of
FreeSeg itself reads crops. The later the start layer, the less a mask matters.
"""

from ovseg_cli.core.methods.masked_clip import MaskedClipConfig, MaskedClipMethod


class IpClipConfig(MaskedClipConfig):
    """Settings of frozen IP-CLIP; all are shared with MAFT."""


class IpClip(MaskedClipMethod):
    """Frozen CLIP, naming masks through masked class tokens."""

    name = "ipclip"
    title = "IP-CLIP"
    paper = "Jiao et al., NeurIPS 2023, frozen"
    trains = "nothing"
    Config = IpClipConfig
    config: IpClipConfig

    @property
    def training_names(self) -> tuple[str, ...] | None:
        """Names of the classes that the host was trained on: what an ensemble with its scores counts as seen."""
        return getattr(self.source, "training_names", None)
