from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wafer_lab.data.images import ImageDataModule
from wafer_lab.data.maps import MapDataModule
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.split import Split
from wafer_lab.data.streams import LABELLED
from wafer_lab.errors import UserError

CPU = torch.device("cpu")
WAFERS = Simulator(num_wafers=300, seed=1, class_frequencies="uniform")


@pytest.fixture
def maps(tmp_path):
    def made(source=WAFERS, **options):
        options = {"target": "multiclass", "num_classes": 9, "in_channels": 3, "canvas": 24, "batch_size": 32} | options
        datamodule = MapDataModule(source=source, cache=str(tmp_path), **options)
        datamodule.setup()
        return datamodule

    return made


@pytest.fixture
def folder(tmp_path):
    """Forty images, dark ones and bright ones."""
    generator = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            grey = np.clip(generator.normal(level, 10, (20, 30)), 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_batches_carry_their_own_wafers(maps):
    datamodule = maps(encoding="grey", in_channels=1)
    seen = 0
    for batch in datamodule.batches("test", CPU):
        for image, target, row in zip(batch.image, batch.target, batch.row.tolist(), strict=True):
            state = datamodule.store.map(row)
            height, width = state.shape
            at = [(2 * i + 1) * np.array([height, width]) // 48 for i in range(24)]
            expected = [[state[at[i][0], at[j][1]] / 2 for j in range(24)] for i in range(24)]
            assert np.array_equal(image[0].numpy(), np.array(expected, np.float32))
            assert target == datamodule.store.label[row]
            seen += 1
    assert seen == len(datamodule.split.test)


def test_training_labels_are_those_of_the_training_rows(maps):
    datamodule = maps()
    assert np.array_equal(datamodule.labels("train"), datamodule.store.label[datamodule.split.train])
    assert not set(datamodule.split.train) & set(datamodule.split.test)


def test_only_training_batches_are_augmented(maps):
    from wafer_lab.data.augment import MapAugment

    plain, augmented = maps(), maps(augment=MapAugment())
    request = next(iter(augmented.train_dataloader()))
    assert torch.equal(augmented.draw(request).image, plain.draw(request).image)
    assert not torch.equal(augmented.draw(request, LABELLED[0]).image, plain.draw(request, LABELLED[0]).image)


def test_the_split_does_not_follow_the_run_seed(maps):
    assert maps(run_seed=0).split_digest == maps(run_seed=7).split_digest != maps(seed=7).split_digest


def test_label_fraction_hides_training_labels_only(maps):
    whole, tenth = maps(), maps(label_fraction=0.1)
    assert tenth.split_digest == whole.split_digest
    assert len(tenth.split.train) == pytest.approx(0.1 * len(whole.split.train), abs=5)
    assert set(np.unique(tenth.labels("train"))) == set(range(9))
    assert len(tenth.split.unlabelled) == len(whole.split.train) - len(tenth.split.train)


def test_limit_keeps_the_proportions(maps):
    counts, of = ([len(getattr(m.split, part)) for part in ("train", "val", "test")] for m in (maps(limit=100), maps()))
    assert sum(counts) == 100
    assert counts == pytest.approx([count / 3 for count in of], abs=1)


def test_label_fraction_under_a_limit_keeps_val_and_test(maps):
    assert maps(limit=100).split_digest == maps(limit=100, label_fraction=0.2).split_digest != maps().split_digest


def test_fingerprint_and_split_digest_follow_the_data_and_not_its_place(toy, tmp_path):
    def made(label, key):
        source = toy.source([toy.rows(60, 3, label=label)], key=key)
        options = {"target": "multiclass", "num_classes": 3, "in_channels": 3}
        datamodule = MapDataModule(source=source, cache=str(tmp_path), **options)
        datamodule.setup()
        return datamodule

    label = np.repeat(np.arange(3, dtype=np.int16), 20)
    here, there, other = made(label, "1"), made(label, "2"), made(label[::-1].copy(), "3")
    assert here.store.header.fingerprint != there.store.header.fingerprint
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert here.split_digest == there.split_digest
    assert Split.digest(other.split, here.fingerprint) != other.split_digest


def test_a_store_is_opened_in_place_of_its_source(maps):
    store = maps().store
    assert np.array_equal(maps(source=None, path=str(store.folder)).store.label, store.label)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "multilabel"}, "data.target=multiclass"),
        ({"num_classes": 8}, "data.num_classes=9"),
        ({"label_fraction": 0.0}, "label_fraction"),
        ({"encoding": "rgb"}, "one_hot, grey, masks"),
        ({"canvas": 0}, "must be positive"),
        ({"limit": 2}, "at least 3"),
        ({"source": None}, "set data.path"),
        ({"target": "mask"}, "needs data.masks"),
        ({"masks": "weak"}, "leave data.masks out"),
        ({"target": "mask", "masks": "patterns"}, "has 8 masks .*; set data.num_classes=8"),
        ({"target": "mask", "masks": "none.json"}, "none.json cannot be read"),
        ({"target": "mask", "masks": "week"}, "data.masks=week .* did you mean weak"),
        ({"target": "mask", "masks": "me.csv"}, "choose patterns, weak or a COCO file"),
    ],
)
def test_what_does_not_fit_is_said(maps, options, says):
    with pytest.raises(UserError, match=says):
        maps(**options)


MIXED = Simulator(num_wafers=400, target="multilabel", seed=3)
MASKS = {"source": MIXED, "target": "mask", "num_classes": 8, "masks": "patterns"}


def test_masks_are_the_pattern_bits_at_the_size_of_the_map(maps):
    datamodule = maps(
        **MASKS | {"source": Simulator(num_wafers=400, target="multilabel", shape=(29, 29)), "canvas": 29}
    )
    seen = 0
    for batch in datamodule.batches("test", CPU):
        assert (batch.target.dtype, batch.target.shape[1:]) == (torch.float32, (8, 29, 29))
        for masks, row in zip(batch.target.numpy(), batch.row.tolist(), strict=True):
            assert np.array_equal(masks, datamodule.store.patterns(row) >> np.arange(8)[:, None, None] & 1)
            seen += 1
    assert seen == len(datamodule.split.test)


def test_masks_turn_with_their_maps(maps):
    """States that spell the masks out let the drawn masks be read from the drawn states."""
    from wafer_lab.data.augment import MapAugment

    datamodule = maps(**MASKS, encoding="grey", in_channels=1, augment=MapAugment())
    patterns, _ = datamodule.store.cells(datamodule.rows, "patterns")
    datamodule.place.maps.cells.copy_(torch.from_numpy((patterns > 0) * np.uint8(2)))
    request = next(iter(datamodule.train_dataloader()))
    drawn, plain = (datamodule.draw(request, stream) for stream in (LABELLED[0], None))
    assert torch.equal(drawn.image[:, 0], drawn.target.amax(1))
    assert torch.equal(plain.image[:, 0], plain.target.amax(1))
    assert not torch.equal(drawn.target, plain.target)


def test_die_noise_leaves_masks_alone(maps):
    from wafer_lab.data.augment import MapAugment

    noisy, plain = maps(**MASKS, augment=MapAugment(d4=False, noise=0.2)), maps(**MASKS)
    request = next(iter(plain.train_dataloader()))
    assert torch.equal(noisy.draw(request, LABELLED[0]).target, plain.draw(request).target)
    assert not torch.equal(noisy.draw(request, LABELLED[0]).image, plain.draw(request).image)


def test_masks_share_the_split_and_labels_of_their_wafers(maps):
    masks, labels = maps(**MASKS), maps(source=MIXED, target="multilabel", num_classes=8)
    assert masks.split_digest == labels.split_digest
    assert np.array_equal(masks.labels("train"), labels.labels("train"))
    assert (masks.label_kind, labels.label_kind, maps().label_kind) == ("multilabel", "multilabel", "multiclass")


def test_the_normal_class_has_no_mask(maps):
    masks, classes = maps(**MASKS | {"source": WAFERS}), maps()
    assert masks.class_names == classes.class_names[:-1]
    assert classes.class_names[-1] == "none"
    assert masks.split_digest == classes.split_digest
    assert np.array_equal(masks.labels("test"), np.eye(9, dtype=np.int8)[classes.labels("test"), :-1])
    assert masks.place.maps.masks is not None
    assert classes.place.maps.masks is None


def test_corrected_masks_are_trained_on(maps, tmp_path):
    from wafer_lab.data.coco import CocoImage, write_coco

    store = maps().store
    rows = np.arange(0, 300, 5)
    corner = {int(row): np.zeros((8, *store.map(row).shape), bool) for row in rows}
    for i, masks in enumerate(corner.values()):
        middle = masks.shape[1] // 2, masks.shape[2] // 2
        masks[i % 2, middle[0] : middle[0] + 2, middle[1]] = i % 3 > 0
    names = maps().class_names[:-1]
    write_coco(tmp_path / "corrected.json", [CocoImage(row, masks) for row, masks in corner.items()], names, scale=2)
    datamodule = maps(**MASKS | {"source": WAFERS, "masks": str(tmp_path / "corrected.json"), "canvas": 25})
    parts = [getattr(datamodule.split, part) for part in ("train", "val", "test")]
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)
    for batch in datamodule.batches("train", CPU):
        for target, row in zip(batch.target.numpy(), batch.row.tolist(), strict=True):
            height, width = store.map(row).shape
            at = [(2 * np.arange(25) + 1) * side // 50 for side in (height, width)]
            assert np.array_equal(target, corner[row][:, at[0]][:, :, at[1]])


def test_weak_masks_are_kept_beside_the_stores(maps):
    first, again = (maps(**MASKS | {"source": WAFERS, "masks": "weak"}) for _ in range(2))
    assert list(Path(first.cache).glob("weak-masks-*.npy"))
    assert torch.equal(first.place.maps.masks, again.place.maps.masks)


def test_images_have_no_masks(folder, tmp_path):
    with pytest.raises(UserError, match="images have no masks"):
        images(folder, tmp_path, target="mask")


def images(folder, tmp_path, **options):
    options = {"target": "multiclass", "num_classes": 2, "in_channels": 1, "canvas": 16, "batch_size": 8} | options
    datamodule = ImageDataModule(path=str(folder), cache=str(tmp_path / "cache"), val=0.2, **options)
    datamodule.setup()
    return datamodule


def test_images_come_scaled_and_labelled(folder, tmp_path):
    datamodule = images(folder, tmp_path, in_channels=3)
    assert datamodule.class_names == ("bright", "dark")
    for batch in datamodule.batches("test", CPU):
        assert batch.image.shape[1:] == (3, 16, 16)
        levels = batch.image.mean((1, 2, 3)) * 255
        assert torch.equal(levels < 120, batch.target == 1)


def test_image_augmentation_is_a_function_of_the_request(folder, tmp_path):
    from wafer_lab.data.images import AugmentedImages

    albumentations = pytest.importorskip("albumentations")
    datamodule = images(
        folder, tmp_path, augment=albumentations.Compose([albumentations.RandomBrightnessContrast(p=1)])
    )
    dataset = datamodule.requests(LABELLED[0])
    assert isinstance(dataset, AugmentedImages)
    request = next(iter(datamodule.train_dataloader().sampler))
    first, again = dataset[request][0], dataset[request][0]
    other = dataset[request._replace(seed=request.seed + 1)][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_are_never_augmented_and_the_workers_stay_on_the_cpu(folder, tmp_path):
    albumentations = pytest.importorskip("albumentations")
    brighter = albumentations.Compose([albumentations.RandomBrightnessContrast(p=1)])
    plain, augmented = images(folder, tmp_path), images(folder, tmp_path, augment=brighter, num_workers=2)
    for expected, found in zip(plain.batches("train", CPU), augmented.batches("train", CPU), strict=True):
        assert torch.equal(expected.row, found.row)
        assert torch.equal(expected.image, found.image)
    request = next(iter(augmented.train_dataloader().sampler))
    assert next(augmented.batches("train", torch.device("meta"))).image.device.type == "meta"  # as if to a GPU
    assert augmented.requests(LABELLED[0])[request][0].device == CPU


def test_maps_and_images_are_not_confused(folder, tmp_path):
    with pytest.raises(UserError, match="holds images, not maps"):
        MapDataModule(path=str(folder), cache=str(tmp_path), target="multiclass", num_classes=2, in_channels=3).setup()
