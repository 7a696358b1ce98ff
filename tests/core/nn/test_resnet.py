"""The backbone against torchvision's and timm's nets of the same form, and the weights that it begins with."""

import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.nn import imagenet
from ovseg_cli.core.nn.imagenet import detectron_name, load_backbone, load_named, timm_name
from ovseg_cli.core.nn.resnet import FrozenBatchNorm, ResNet, make_norm
from ovseg_cli.core.nn.resnet_config import ResNetConfig
from ovseg_cli.core.reporter import Silent

BLOCKS = (1, 2, 2, 3)
SMALL = {"width": 8, "res2_width": 32, "multi_grid": (1, 1, 1)}


def shuffled(net: nn.Module) -> nn.Module:
    """Give batch norms statistics that are not those of a new net."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if "bn" in name or "downsample.1" in name or "conv1.1" in name or "conv1.4" in name:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.eval()


def torchvision_net() -> nn.Module:
    net = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, list(BLOCKS))
    return shuffled(net)


def timm_deep_net() -> nn.Module:
    return shuffled(timm.create_model("resnet50s", pretrained=False, block_args={}, layers=BLOCKS))


@torch.no_grad()
def maps_of(net: nn.Module, images):
    x = net.maxpool(getattr(net, "act1", getattr(net, "relu", None))(net.bn1(net.conv1(images))))
    maps = {}
    for i in range(1, 5):
        x = maps[f"res{i + 1}"] = getattr(net, f"layer{i}")(x)
    return maps


def assert_same_maps(resnet, net):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = resnet.eval()(images)
    for name, expected in maps_of(net, images).items():
        torch.testing.assert_close(maps[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_frozen_batch_norm_by_hand():
    norm = FrozenBatchNorm(1, eps=0.0)
    for name, value in {"weight": 3.0, "bias": 1.0, "running_mean": 2.0, "running_var": 4.0}.items():
        getattr(norm, name).fill_(value)
    assert norm.train()(torch.full((1, 1, 1, 1), 6.0)).item() == 3 * (6 - 2) / 2 + 1
    assert float(norm.running_mean) == 2 and not list(norm.parameters())


def test_group_norm_has_groups_of_eight_channels_or_more():
    assert [make_norm("group-norm", c).num_groups for c in (4, 16, 48, 256, 2048)] == [1, 2, 6, 32, 32]


def test_basic_stem_equals_torchvision():
    net = torchvision_net()
    resnet = ResNet(ResNetConfig.basic(blocks=BLOCKS))
    load_named(resnet, net.state_dict(), "torchvision")
    assert_same_maps(resnet, net)


def test_deeplab_stem_equals_timm():
    net = timm_deep_net()
    resnet = ResNet(ResNetConfig(blocks=BLOCKS, stem_width=128, multi_grid=(1, 1, 1)))
    load_named(resnet, net.state_dict(), "timm")
    assert_same_maps(resnet, net)


def test_stride_in_the_first_convolution_is_another_net_with_the_same_weights():
    state = torchvision_net().state_dict()
    images, maps = torch.randn(1, 3, 64, 64), []
    for stride_in_1x1 in (False, True):
        resnet = ResNet(ResNetConfig.basic(blocks=BLOCKS, stride_in_1x1=stride_in_1x1)).eval()
        load_named(resnet, state, "torchvision")
        with torch.no_grad():
            maps.append(resnet(images))
    assert maps[0]["res2"].equal(maps[1]["res2"])
    assert maps[0]["res3"].shape == maps[1]["res3"].shape and not maps[0]["res3"].equal(maps[1]["res3"])


def test_multi_grid_dilates_res5_alone_and_keeps_sizes():
    plain = ResNet(ResNetConfig(blocks=BLOCKS, stem_width=8, **SMALL))
    dilated = ResNet(ResNetConfig(blocks=BLOCKS, stem_width=8, **{**SMALL, "multi_grid": (1, 2, 4)}))
    dilated.load_state_dict(plain.state_dict())
    assert [block.conv2.dilation[0] for block in dilated.res5] == [1, 2, 4]
    images = torch.randn(1, 3, 96, 64)
    maps, other = plain.eval()(images), dilated.eval()(images)
    assert maps["res4"].equal(other["res4"]) and not maps["res5"].equal(other["res5"])
    assert [tuple(m.shape) for m in other.values()] == [
        (1, 32 * 2**i, 24 // 2**i, 16 // 2**i) for i in range(4)
    ]  # strides 4, 8, 16, 32


@pytest.mark.parametrize("norm", ["frozen-bn", "group-norm"])
@pytest.mark.parametrize("stem", ["basic", "deeplab"])
def test_configuration_is_read_back_from_shapes(norm, stem):
    config = ResNetConfig(blocks=BLOCKS, stem=stem, stem_width=6, norm=norm, **SMALL)
    state = {f"backbone.{k}": v for k, v in ResNet(config).state_dict().items()}
    read = ResNetConfig.from_state_dict(state)
    expected = config.model_copy(update={"multi_grid": (1, 2, 4) if stem == "deeplab" else (1, 1, 1)})
    assert read == expected


def test_a_missing_stage_is_named():
    state = {f"backbone.{k}": v for k, v in ResNet(ResNetConfig(blocks=BLOCKS, **SMALL)).state_dict().items()}
    with pytest.raises(KeyError, match="res4"):
        ResNetConfig.from_state_dict({k: v for k, v in state.items() if ".res4." not in k})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"blocks": (3, 4, 0, 3)}, "at least one"),
        ({"stem_width": 7}, "must be even"),
        ({"multi_grid": (1, 2)}, "3 blocks, one dilation each"),
        ({"multi_grid": (1, 0, 1)}, "one dilation each"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        ResNetConfig(**settings)


# --- ImageNet weights


@pytest.mark.parametrize(
    ("theirs", "deep", "ours"),
    [
        ("conv1.weight", False, "stem.conv1.weight"),
        ("bn1.running_var", False, "stem.conv1.norm.running_var"),
        ("conv1.4.bias", True, "stem.conv2.norm.bias"),
        ("bn1.bias", True, "stem.conv3.norm.bias"),
        ("layer2.0.downsample.1.running_mean", False, "res3.0.shortcut.norm.running_mean"),
        ("layer4.2.bn3.weight", False, "res5.2.conv3.norm.weight"),
        ("fc.weight", False, None),
        ("bn1.num_batches_tracked", False, None),
    ],
)
def test_names_are_translated(theirs, deep, ours):
    assert detectron_name(theirs, deep) == ours


def test_published_forms_have_timm_names_that_timm_knows():
    names = [timm_name(ResNetConfig()), timm_name(ResNetConfig.basic(101)), timm_name(ResNetConfig.basic(50))]
    assert names == ["resnet101s.gluon_in1k", "resnet101.tv_in1k", "resnet50.tv_in1k"]
    assert set(names) <= set(timm.list_pretrained("resnet*"))


def test_a_form_without_weights_says_how_to_go_on():
    with pytest.raises(UsageError, match="backbone_weights = none"):
        timm_name(ResNetConfig(stem_width=8))


def test_weights_come_from_a_file(tmp_path):
    net = torchvision_net()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "net.safetensors")
    resnet = ResNet(ResNetConfig.basic(blocks=BLOCKS))
    load_backbone(resnet, str(tmp_path / "net.safetensors"), Silent())
    assert_same_maps(resnet, net)


def test_weights_of_another_net_are_refused_by_name():
    resnet = ResNet(ResNetConfig.basic(blocks=(1, 2, 2, 2), multi_grid=(1, 1)))
    with pytest.raises(UsageError, match=r"res5\.2.*unknown"):
        load_named(resnet, torchvision_net().state_dict(), "file")
    with pytest.raises(UsageError, match=r"is \(64, 3, 7, 7\), not \(32, 3, 7, 7\)"):
        load_named(ResNet(ResNetConfig.basic(blocks=BLOCKS, stem_width=32)), torchvision_net().state_dict(), "file")


def test_absent_weights_name_the_file_to_bring(monkeypatch):
    def offline(name, pretrained):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(imagenet.hub, "check_reachable", lambda: None)
    with pytest.raises(MachineError, match="resnet50.tv_in1k.*no network") as caught:
        load_backbone(ResNet(ResNetConfig.basic(50)), "imagenet")
    assert "timm/resnet50.tv_in1k" in caught.value.mend and "backbone_weights=FILE" in caught.value.mend


def test_downloaded_weights_are_loaded(monkeypatch):
    net = torchvision.models.resnet50().eval()
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: net)
    monkeypatch.setattr(imagenet.hub, "check_reachable", lambda: None)
    resnet = ResNet(ResNetConfig.basic(50))
    load_backbone(resnet, "imagenet")
    assert resnet.res5[2].conv3.weight.equal(net.layer4[2].conv3.weight)


def test_missing_file_and_group_norm_are_refused():
    with pytest.raises(MachineError, match="there is no such file"):
        load_backbone(ResNet(ResNetConfig.basic(50)), "nowhere.pth")
    small = ResNet(ResNetConfig(blocks=BLOCKS, norm="group-norm", **SMALL))
    with pytest.raises(UsageError, match="batch norm"):
        load_backbone(small, "imagenet")
    before = small.state_dict()["stem.conv1.weight"].clone()
    load_backbone(small, "none")
    assert small.state_dict()["stem.conv1.weight"].equal(before)
