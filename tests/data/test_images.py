"""Folders of images: every mode, every stray file, every spelling."""

import os
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from wafer_lab.config.build import build
from wafer_lab.config.resolvers import CHANNELS
from wafer_lab.data.images import ImageDataModule, image_encoding, scale
from wafer_lab.data.prepare import prepare
from wafer_lab.data.readers import ImageFolder, decode_grey
from wafer_lab.data.rows import content_hash
from wafer_lab.errors import UserError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def picture(path, value=0, mode="L", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def saved(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "PA"])
def test_grey_is_the_same_in_every_mode(tmp_path, mode):
    image = Image.fromarray(GREY)
    if mode in ("P", "PA"):  # a palette in disorder, so that indices are not values
        image = Image.fromarray(GREY[::-1].copy()).convert("P")
        image.putpalette([255 - i for i in range(256) for _ in range(3)])
        image.putdata(list(255 - GREY.ravel().astype(int)))
    else:
        image = image.convert(mode)
    found = decode_grey(saved(tmp_path, image, "x.tif" if mode == "PA" else "x.png"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, GREY)


def test_colour_becomes_luma(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_grey(saved(tmp_path, Image.fromarray(rgb))) - luma).max() <= 1


def test_one_bit_and_sixteen_bit(tmp_path):
    bits = Image.fromarray(GREY > 99)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decode_grey(saved(tmp_path, bits)), (GREY > 99) * 255)
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    for name in ("x.png", "x.tif"):
        np.testing.assert_array_equal(decode_grey(saved(tmp_path, wide, name)), GREY)
    integers = Image.fromarray(GREY.astype(np.int32) * 257)
    np.testing.assert_array_equal(decode_grey(saved(tmp_path, integers, "i.tif")), GREY)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_over_black(tmp_path, mode):
    levels = (200, 128) if mode == "LA" else (200, 200, 200, 128)
    assert abs(int(decode_grey(saved(tmp_path, Image.new(mode, (2, 2), levels)))[0, 0]) - 200 * 128 / 255) <= 1
    hidden = (200, 0) if mode == "LA" else (200, 200, 200, 0)
    assert (decode_grey(saved(tmp_path, Image.new(mode, (2, 2), hidden))) == 0).all()


def test_a_transparent_palette_entry_is_black(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([90, 90, 90, 60, 60, 60])
    assert decode_grey(saved(tmp_path, image, transparency=0)).tolist() == [[0, 60]]


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif", "x.pgm"])
def test_lossless_formats(tmp_path, name):
    np.testing.assert_array_equal(decode_grey(saved(tmp_path, Image.fromarray(GREY), name)), GREY)


def test_what_cannot_be_decoded_names_the_file(tmp_path):
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))).read_bytes()
    for name, content in [
        ("cut.png", whole[: len(whole) // 2]),
        ("flip.png", whole[:60] + bytes(40) + whole[100:]),
        ("text.png", b"not an image"),
        ("empty.png", b""),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),  # would start Ghostscript
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is .*mend or delete it"):
            decode_grey(tmp_path / name)
    with pytest.raises(UserError, match="there is no image"):
        decode_grey(tmp_path / "gone.png")
    floats = saved(tmp_path, Image.fromarray(np.ones((2, 2), np.float32)), "f.tif")
    with pytest.raises(UserError, match="floating-point"):
        decode_grey(floats)
    deep = saved(tmp_path, Image.fromarray(np.full((2, 2), 70_000, np.int32)), "d.tif")
    with pytest.raises(UserError, match="32-bit"):
        decode_grey(deep)


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_decompression_bomb_is_refused_unopened(tmp_path, side):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2
    data = chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00") + chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=r"bomb.png has .*cut it into tiles"):
        decode_grey(tmp_path / "bomb.png")


def test_class_folders_and_what_lies_about(tmp_path):
    for name in ("via/2.png", "via/10.png", "OPEN/a.PNG", "open/b.png", "OPEN/c.jpeg", "Cracks/1.bmp", "crack/1.tif"):
        picture(tmp_path / name, 7)
    for name in ("__MACOSX/via/._2.png", "via/.DS_Store", "via/._2.png", "desktop.ini", "OPEN/Thumbs.db", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "via" / "notes.txt").write_text("skipped")
    source = ImageFolder(tmp_path)
    assert source.class_names == ("Cracks", "OPEN", "crack", "via")
    (rows,) = source.rows()
    assert rows.path == [
        "Cracks/1.bmp",
        "OPEN/a.PNG",
        "OPEN/c.jpeg",
        "crack/1.tif",
        "open/b.png",
        "via/10.png",
        "via/2.png",
    ]
    assert rows.label.tolist() == [0, 1, 1, 2, 1, 3, 3]
    assert rows.label.dtype == np.int16
    assert (rows.height.tolist(), rows.width.tolist()) == ([3] * 7, [4] * 7)
    assert rows.content[5] == rows.content[6] == content_hash(bytes([7] * 12), 3, 4)
    assert rows.vendor_split is None
    assert source.notes() == {
        "files_skipped": 1,
        "merged_class_folders": "open -> OPEN",
        "similar_class_names": "crack / Cracks",
    }


def test_train_and_test_above_the_classes(tmp_path):
    for name in ("Train/a/1.png", "Train/b/1.png", "val/a/2.png", "test/b/3.png"):
        picture(tmp_path / name)
    source = ImageFolder(tmp_path)
    (rows,) = source.rows()
    assert source.class_names == ("a", "b")
    assert dict(zip(rows.path, zip(rows.label.tolist(), rows.vendor_split, strict=True), strict=True)) == {
        "Train/a/1.png": (0, "train"),
        "Train/b/1.png": (1, "train"),
        "val/a/2.png": (0, "val"),
        "test/b/3.png": (1, "test"),
    }


def test_a_folder_round_the_class_folders_is_looked_through(tmp_path):
    for name in ("sem/images/a/1.png", "sem/images/b/1.png", "__MACOSX/x"):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).parent.mkdir()
    source = ImageFolder(tmp_path)
    assert source.class_names == ("a", "b")
    assert source.root == str(tmp_path / "sem" / "images")


def test_images_without_class_folders_are_unlabelled(tmp_path):
    for name in ("b.png", "a.png"):
        picture(tmp_path / name)
    source = ImageFolder(tmp_path)
    store = prepare(source, tmp_path.parent / f"{tmp_path.name}-store")
    assert source.class_names == store.header.class_names == ()
    assert store.label.tolist() == [-1, -1]
    assert store.path == ["a.png", "b.png"]
    assert store.root == str(tmp_path)
    assert store.header.kind == "images"


def test_empty_folders_are_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no images"):
        ImageFolder(tmp_path)
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".DS_Store").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"class folder .*b holds no images; fill it or delete it"):
        ImageFolder(tmp_path)


def test_the_fingerprint_follows_the_files(tmp_path):
    picture(tmp_path / "a" / "1.png")
    first = ImageFolder(tmp_path).fingerprint()
    assert first == ImageFolder(tmp_path).fingerprint()
    os.utime(tmp_path / "a" / "1.png", ns=(1, 1))
    touched = ImageFolder(tmp_path).fingerprint()
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "2.png")
    renamed = ImageFolder(tmp_path).fingerprint()
    picture(tmp_path / "a" / "3.png")
    assert len({first, touched, renamed, ImageFolder(tmp_path).fingerprint()}) == 4


@pytest.mark.parametrize("encoding", ["grey", "grey_rgb", "imagenet", "inception"])
def test_grey_levels_become_channels(encoding):
    image = scale(torch.from_numpy(GREY)[None], image_encoding(encoding, CHANNELS[encoding]))
    assert image.shape == (1, CHANNELS[encoding], 16, 16)
    assert image.dtype == torch.float32
    assert image.is_contiguous(memory_format=torch.channels_last)
    level = GREY / 255
    if encoding == "imagenet":  # as torchvision's Normalize does it
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        expected = (level[None] - mean[:, None, None]) / std[:, None, None]
    elif encoding == "inception":
        expected = np.repeat(2 * level[None] - 1, 3, 0)
    else:
        expected = np.repeat(level[None], CHANNELS[encoding], 0)
    np.testing.assert_allclose(image[0], expected, atol=1e-6)


def test_a_config_from_before_encodings_repeats_the_channel():
    assert image_encoding("grey", 3) == "grey_rgb"


@pytest.mark.parametrize(
    ("encoding", "channels", "says"),
    [
        ("one_hot", 3, "choose grey, grey_rgb, imagenet, inception"),
        ("imagenet", 1, "imagenet gives 3 channels, not data.in_channels=1"),
    ],
)
def test_an_encoding_that_does_not_fit_is_refused(encoding, channels, says):
    with pytest.raises(UserError, match=says):
        image_encoding(encoding, channels)


@pytest.mark.parametrize("preset", ["safe", "strong"])
def test_augmentation_keeps_what_classes_hang_on(configured, preset):
    pytest.importorskip("albumentations")
    augment = build(configured("data=sem", "data.path=x", "data.num_classes=2", f"augment={preset}").augment.images)
    # White above black, grey on the left: up stays up, left may become right, and levels keep their order.
    image = np.full((64, 64, 1), 20, np.uint8)
    image[:32], image[:32, :16] = 230, 110
    lines = np.tile(np.array([40, 200], np.uint8), (64, 32))[..., None]  # finer than any edge's roughness
    lefts, contrast = [], []
    for seed in range(40):
        augment.set_random_seed(seed)
        shown = augment(image=image)["image"][..., 0].astype(float)
        assert shown[:12].mean() > shown[-12:].mean() + 40
        left, right = shown[4:20, 4:8].mean(), shown[4:20, -8:-4].mean()
        lefts.append(left < right)
        assert abs(left - right) > 30
        contrast.append(augment(image=lines)["image"].std())
    assert 8 < sum(lefts) < 32
    assert min(contrast) > 33  # of 80; a blur of 3 pixels leaves at most 29


def test_the_real_sample(real_data, tmp_path):
    store = prepare(ImageFolder(real_data / "sem_sample"), tmp_path / "s")
    assert len(store) == 782
    assert len(store.header.class_names) == 11
    assert store.path == sorted(store.path)
    assert (store.height == 128).all()
    assert (store.width == 128).all()
    named = [store.header.class_names[i] for i in store.label]
    assert named == [path.split("/")[0] for path in store.path]
    i = 400
    assert store.content[i] == content_hash(decode_grey(os.path.join(store.root, store.path[i])), 128, 128)


def test_one_folder_of_images_is_no_data_set_to_train_on(tmp_path):
    for value in range(6):
        picture(tmp_path / "images" / "figures" / f"{value}.png", value)
    options = {"target": "multiclass", "num_classes": 1, "in_channels": 1}
    data = ImageDataModule(path=str(tmp_path / "images"), cache=str(tmp_path), **options)
    with pytest.raises(UserError, match="has one class, figures, and nothing to tell it from"):
        data.setup()
