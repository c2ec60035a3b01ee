"""Names in public configurations that have moved, or that are not carried."""

from __future__ import annotations

import contextlib
import importlib.util

import pytest

from ldm.targets import MOVED, NOT_CARRIED, current_name
from ldm.util import ConfigError, MissingPartError, get_obj_from_str, instantiate_from_config


@pytest.mark.parametrize(
    "target",
    [
        "ldm.data.imagenet.ImageNetTrain",
        "ldm.data.lsun.LSUNChurchesTrain",
        "ldm.data.laion.WebDataModuleFromConfig",
        "ldm.data.openimages.FullOpenImagesTrain",
        "taming.data.faceshq.FFHQTrain",
        "ldm.modules.encoders.modules.FrozenT5Embedder",
    ],
)
def test_what_is_not_carried_is_declined_with_one_sentence(target: str) -> None:
    with pytest.raises(MissingPartError) as raised:
        instantiate_from_config({"target": target, "params": {"size": 256}})
    message = str(raised.value)
    assert target in message and "\n" not in message
    assert not message.rstrip(".").count(". "), message


def test_what_the_sentences_recommend_exists() -> None:
    for sentence in NOT_CARRIED.values():
        for word in sentence.replace(",", " ").replace(";", " ").split():
            if word.startswith("ldm.") and word[word.rfind(".") + 1].isupper():
                get_obj_from_str(word)


@pytest.mark.parametrize("old", MOVED)
def test_what_has_moved_is_found(old: str) -> None:
    old = {"lightning.pytorch": "lightning.pytorch.strategies.DDPStrategy",
           "stable_diffusion.ldm": "stable_diffusion.ldm.util.UserError"}.get(old, old)  # fmt: skip
    if importlib.util.find_spec(current_name(old).rpartition(".")[0]) is not None:
        with contextlib.suppress(ModuleNotFoundError):  # a whole module, which its package has once it is imported
            importlib.import_module(current_name(old))
    assert get_obj_from_str(old) is get_obj_from_str(current_name(old))


def test_only_whole_names_are_prefixes() -> None:
    assert current_name("lightning.pytorch_other.X") == "lightning.pytorch_other.X"
    with pytest.raises(ConfigError, match=r"there is no module 'ldm\.data\.imagenets'"):
        get_obj_from_str("ldm.data.imagenets.Train")


def test_a_name_that_exists_is_not_declined() -> None:
    assert get_obj_from_str("collections.OrderedDict").__name__ == "OrderedDict"


# what YAMLs of seven public repositories name, besides what the others of these tests build
WILD = {
    "CompVis/latent-diffusion": (
        "ldm.data.landscapes.RFWTrain", "ldm.data.imagenet.ImageNetSR", "ldm.data.lsun.LSUNBedroomsTrain",
        "ldm.data.openimages.FullOpenImagesTrain", "taming.data.ade20k.ADE20kTrain", "ldm.data.coco.CocoValidation",
        "ldm.data.inpainting.InpaintingTrain", "taming.data.annotated_objects_open_images.AnnotatedObjectsOpenImages",
    ),
    "Stability-AI/stablediffusion": ("ldm.data.laion.WebDataModuleFromConfig", "ldm.data.util.AddMiDaS"),
    "Stability-AI/generative-models": (
        "sgm.data.dataset.StableDataModuleFromConfig", "sdata.mappers.TorchVisionImageTransforms",
        "sdata.mappers.Rescaler", "sgm.data.mnist.MNISTLoader", "sgm.data.cifar10.CIFAR10Loader",
        "sgm.modules.autoencoding.losses.GeneralLPIPSWithDiscriminator",
        "sgm.modules.spacetime_attention.SpatialTransformer", "torchvision.transforms.Resize",
    ),
    "justinpinkney/stable-diffusion": (
        "ldm.data.simple.hf_dataset", "ldm.data.simple.TextOnly", "ldm.data.simple.FolderData",
        "ldm.data.simple.hf_dataset_from_local", "ldm.data.unsplash.UnsplashDataset", "ldm.data.dummy.DummyData",
    ),
    "timothybrooks/instruct-pix2pix": (
        "edit_dataset.EditDataset", "stable_diffusion.ldm.models.diffusion.ddpm_edit.LatentDiffusion",
    ),
    "lllyasviel/ControlNet": ("cldm.cldm.ControlLDM", "cldm.cldm.ControlNet", "cldm.cldm.ControlledUnetModel"),
    "hpcaitech/ColossalAI": (
        "strategies.ColossalAIStrategy", "ldm.data.cifar10.hf_dataset", "ldm.data.teyvat.hf_dataset",
        "ldm.data.base.Txt2ImgIterableBaseDataset",
    ),
}  # fmt: skip


@pytest.mark.parametrize("target", [target for targets in WILD.values() for target in targets])
def test_what_public_yamls_name_is_declined_with_what_would_do(target: str) -> None:
    with pytest.raises(MissingPartError, match=r"^no '.*': ") as raised:
        instantiate_from_config({"target": target})
    message = str(raised.value)
    hint = message.split(": ", 1)[1]
    ways_out = ("take ", "python ", "--", "leave ", "made by", "by themselves")
    assert "\n" not in message and any(word in hint for word in ways_out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stable_diffusion.ldm.models.autoencoder.AutoencoderKL", "ldm.models.autoencoder.AutoencoderKL"),
        ("stable_diffusion.ldm.lr_scheduler.LambdaLinearScheduler", "ldm.lr_scheduler.LambdaLinearScheduler"),
        ("strategies.DDPStrategy", "pytorch_lightning.strategies.DDPStrategy"),
    ],
)
def test_copies_of_the_code_and_short_names(old: str, new: str) -> None:
    assert get_obj_from_str(old) is get_obj_from_str(new)


def test_a_callback_of_a_nested_copy_is_the_one_here() -> None:
    old = "stable_diffusion.ldm.modules.losses.contperceptual.DummyLoss"
    assert current_name(old) == "ldm.modules.losses.DummyLoss"
