import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg_cli.core.data.images import image_size, load_image, load_label, read_image, read_label, write_label
from ovseg_cli.core.errors import DataError, MachineError, UsageError

RED, WHITE = [255, 0, 0], [255, 255, 255]


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_image_of_two_pixels_is_channels_first_rgb(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    image = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert image.dtype == torch.uint8
    assert image.tolist() == [[[1, 4]], [[2, 5]], [[3, 6]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    # What a camera stores so that turning it by the tag gives `upright`: TIFF 6.0, tag 274.
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(load_image(path), upright)
    assert np.array_equal(load_image(path, upright=False), stored)
    assert image_size(path) == stored.shape[:2]


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    image = load_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    assert image[0, :2].tolist() == [RED, WHITE]
    assert image[0, 2, 0] in (126, 127, 128)


def test_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    assert load_image(save(tmp_path / "a.png", picture, transparency=1)).tolist() == [[RED, WHITE]]
    assert load_image(save(tmp_path / "b.png", picture)).tolist() == [[RED, [0, 0, 255]]]


def test_16_bit_grey_is_scaled_to_8(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        assert load_image(save(tmp_path / name, Image.fromarray(grey)))[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"), [([[0.0, 0.5, 1.0]], [0, 128, 255]), ([[0.0, 2.0, 255.0]], [0, 2, 255])]
)
def test_floating_point_tiff_counts_as_0_to_1_or_0_to_255(tmp_path: Path, values: list, expected: list) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.array(values, np.float32)))
    assert load_image(path)[0, :, 0].tolist() == expected


def test_floating_point_tiff_outside_both_ranges_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.array([[-1.0, 300.0]], np.float32)))
    with pytest.raises(DataError, match=r"a\.tif: .*-1\.0 to 300\.0"):
        load_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb_of_the_same_size(tmp_path: Path, mode: str) -> None:
    picture = Image.new("I;16", (5, 3)) if mode == "I;16" else Image.new("RGB", (5, 3), "white").convert(mode)
    path = save(tmp_path / ("a.jpg" if mode == "YCbCr" else "a.tif"), picture)
    assert read_image(path).shape == (3, 3, 5)
    assert mode == "I;16" or load_image(path).min() > 250


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_image(path)[0, 0].tolist() == RED


def test_picture_of_one_pixel_is_read(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1)))).shape == (3, 1, 1)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


def noisy(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


BROKEN = {
    "no file": (None, "there is no such file"),
    "folder": ("folder", "a folder, not a picture"),
    "empty": (b"", r"empty \(0 bytes\)"),
    "text": (b"not a picture at all", "not a picture"),
    "cut png": (noisy("PNG")[:3000], "cut off or damaged"),
    "cut jpeg": (noisy("JPEG")[:1500], "cut off or damaged"),
    "header only": (noisy("PNG")[:8], "not a picture"),
    "flipped bytes": (noisy("PNG")[:200] + bytes(200) + noisy("PNG")[400:], "cut off or damaged"),
    "huge": (png_header(20_000, 20_000), r"20000 x 20000 pixels are more than the limit of 80,000,000"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not a picture"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("error", [DataError, UsageError])
def test_broken_file_is_one_sentence_with_its_name(tmp_path: Path, kind: str, error: type, recwarn: object) -> None:
    content, message = BROKEN[kind]
    path = tmp_path / "broken.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(error, match=message) as caught:
            read(path, error)
        assert type(caught.value) is error
        assert caught.value.message.startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert len(recwarn) == 0, "Pillow's own warnings must not reach the user"


def test_size_is_refused_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    path = save(tmp_path / "a.png", Image.new("RGB", (10, 10)))
    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(DataError, match="limit of 99 pixels"):
        load_image(path, max_pixels=99)


def test_pillows_own_limit_is_left_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    load_image(save(tmp_path / "a.png", Image.new("RGB", (2, 2))))
    assert before == Image.MAX_IMAGE_PIXELS


def test_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (2, 2)))

    def deny(*_args: object, **_options: object) -> None:  # a superuser may read everything, so the refusal is injected
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", deny)
    with pytest.raises(DataError, match=r"a\.png: permission to read it is denied"):
        read_image(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_written_labels_are_read_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16"]))
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    size, top = shape[0] * shape[1], np.iinfo(dtype).max
    values = data.draw(st.lists(st.integers(0, top), min_size=size, max_size=size))
    label = torch.tensor(values).reshape(shape)
    path = tmp_path_factory.mktemp("label") / "a.png"
    write_label(path, label, dtype)
    assert read_label(path).dtype == torch.int64
    assert torch.equal(read_label(path), label)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_labels_of_few_bits_keep_their_ids(tmp_path: Path, bits: int, mode: str) -> None:
    """Pillow stretches 2- and 4-bit grey to 0..255; a class id must not be."""
    ids = np.arange(min(1 << bits, 5), dtype=np.uint8)[None]
    color_type = 0 if mode == "L" else 3
    row = "".join(f"{i:0{bits}b}" for i in ids[0])
    row += "0" * (-len(row) % 8)
    packed = b"\0" + bytes(int(row[i : i + 8], 2) for i in range(0, len(row), 8))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", ids.size, 1, bits, color_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(48)) * 16) if mode == "P" and bits == 8 else b""
    palette = chunk(b"PLTE", bytes(range(3 << bits))) if mode == "P" and bits < 8 else palette
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(packed))
        + chunk(b"IEND", b"")
    )
    assert load_label(path).tolist() == ids.tolist()


def test_label_in_colour_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (2, 2)))
    with pytest.raises(
        DataError, match=r"a\.png: a label map needs one channel of class ids, this picture is RGB"
    ) as caught:
        read_label(path)
    assert "annotation file" in str(caught.value.mend)


def test_label_that_does_not_fit_its_depth_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="256 do not fit into uint8"):
        write_label(tmp_path / "a.png", np.array([[0, 256]]))
    assert not list(tmp_path.iterdir())


def test_label_under_a_file_instead_of_a_folder_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(MachineError, match="labels"):
        write_label(tmp_path / "labels" / "a.png", np.zeros((1, 1)))
