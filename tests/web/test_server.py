"""The server as programs written for A1111's web UI use it: a client library of others, limits, strangers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ldm.pictures.images import read_parameters
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.web.serving import serving, until

pytest.importorskip("fastapi", reason="the server needs the extra 'web'")
webuiapi = pytest.importorskip("webuiapi", reason="the client library of others is not installed")

import requests  # noqa: E402

from ldm.web.a1111.fields import Limits  # noqa: E402
from ldm.web.a1111.routes import add_routes  # noqa: E402
from ldm.web.jobs import Desk  # noqa: E402
from ldm.web.rules import rules_for  # noqa: E402
from ldm.web.server import make_app  # noqa: E402

PROMPT = "a red star on a blue background"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def url(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = make_app(desk, rules_for("127.0.0.1", None))
    add_routes(app, desk, tmp_path_factory.mktemp("saved"), Limits(pixels=256 * 256, pictures=4))
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1")


def post(url: str, path: str, payload: Any, **more: Any) -> requests.Response:
    return requests.post(f"{url}/sdapi/v1/{path}", json=payload, timeout=60, **more)


def test_a_client_library_makes_the_picture_that_python_makes(client: Any, desk: Desk) -> None:
    made = client.txt2img(prompt=PROMPT, width=64, height=64, seed=7, steps=3, batch_size=2, cfg_scale=3.0)
    options = Txt2ImgOptions(
        prompt=PROMPT, width=64, height=64, seed=7, steps=3, n_samples=2, guidance_scale=3.0,
        sampler="euler_ancestral", skip_save=True, skip_grid=True, progress=False,
    )  # fmt: skip
    ours = txt2img(options)
    assert [one.tobytes() for one in made.images] == [one.tobytes() for one in ours]
    assert made.info["all_seeds"] == [7, 8] and made.info["sampler_name"] == "Euler a"
    assert made.info["infotexts"][1].splitlines() == [
        PROMPT, "Steps: 3, Sampler: Euler a, CFG scale: 3.0, Seed: 8, Size: 64x64, Model: tiny/model.safetensors",
    ]  # fmt: skip
    assert client.png_info(made.images[0]).info == made.info["infotexts"][0]


def test_a_client_library_begins_from_a_picture_and_paints_in_a_part(client: Any) -> None:
    init = Image.new("RGB", (64, 64), "blue")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    same: dict[str, Any] = {"prompt": PROMPT, "seed": 7, "steps": 4, "width": 64, "height": 64}
    made = client.img2img(images=[init], denoising_strength=0.5, sampler_name="Euler", **same)
    ours: dict[str, Any] = {
        "prompt": PROMPT, "seed": 7, "steps": 4, "width": 64, "height": 64, "n_samples": 1, "guidance_scale": 7.0,
        "sampler": "euler", "skip_save": True, "skip_grid": True, "progress": False, "init_img": init, "strength": 0.5,
    }  # fmt: skip
    assert made.image.tobytes() == img2img(Img2ImgOptions(**ours))[0].tobytes()
    with pytest.raises(RuntimeError, match="inpainting_fill: 0"):
        client.img2img(images=[init], mask_image=mask, **same)
    painted = client.img2img(
        images=[init], mask_image=mask, mask_blur=0, denoising_strength=1.0, inpainting_fill=1, inpaint_full_res=False,
        **same,
    )  # fmt: skip
    assert painted.image.crop((32, 0, 64, 64)).tobytes() == init.crop((32, 0, 64, 64)).tobytes()
    assert painted.image.crop((0, 0, 32, 64)).tobytes() != init.crop((0, 0, 32, 64)).tobytes()
    part = client.img2img(
        images=[init.resize((96, 64))], mask_image=mask.resize((96, 64)), mask_blur=0, denoising_strength=1.0,
        inpainting_fill=1, inpaint_full_res=True, inpaint_full_res_padding=4, sampler_name="Euler",
        **same,
    )  # fmt: skip
    assert part.image.size == (96, 64) and part.image.tobytes() == inpaint(
        InpaintOptions(**ours | {"init_img": init.resize((96, 64)), "mask": mask.resize((96, 64)), "only_masked": 4,
                                 "strength": 1.0})
    )[0].tobytes()  # fmt: skip
    with pytest.raises(RuntimeError, match="resize_mode: 0"):
        client.img2img(images=[init.resize((64, 32))], **same)


def test_variations_tiles_and_a_second_pass_are_those_of_python(url: str) -> None:
    more = {
        "subseed": 3, "subseed_strength": 0.3, "tiling": True, "enable_hr": True, "hr_scale": 1.5,
        "hr_upscaler": "Lanczos", "denoising_strength": 0.5, "sampler_name": "DPM++ 2M Karras",
    }  # fmt: skip
    answer = post(url, "txt2img", {**SMALL, **more}).json()
    options = Txt2ImgOptions(
        prompt=PROMPT, width=64, height=64, steps=2, seed=7, n_samples=1, variation_seed=3, variation_strength=0.3,
        tiling=True, hires=1.5, hires_strength=0.5, sampler="dpm_solver_karras", skip_save=True, skip_grid=True,
        progress=False,
    )  # fmt: skip
    with Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))) as made:
        assert made.size == (96, 96) and made.tobytes() == txt2img(options)[0].tobytes()


def test_a_client_finds_models_samplers_and_settings(client: Any) -> None:
    names = client.util_get_model_names()
    assert "tiny" in names and "tiny-film" not in names, "a client that picks a model wants pictures"
    assert client.util_get_current_model() == "tiny"
    assert {"DDIM", "Euler a", "DPM++ 2M"} <= set(client.util_get_sampler_names())
    client.util_set_model("tiny")
    client.util_wait_for_ready(check_interval=0.1)
    assert client.get_progress()["progress"] == 0


def test_what_is_left_open_is_as_the_models_yaml_says(url: str) -> None:
    answer = post(url, "txt2img", {"prompt": PROMPT, "steps": 1}).json()
    info = json.loads(answer["info"])
    assert (info["width"], info["sampler_name"], info["cfg_scale"]) == (128, "DDIM", 1.5) and info["seed"] >= 0


def test_a_picture_is_saved_when_that_is_asked_for(url: str) -> None:
    answer = post(url, "txt2img", {**SMALL, "save_images": True, "send_images": False}).json()
    (path,) = json.loads(answer["info"])["paths"]
    about = read_parameters(path)
    assert answer["images"] == [] and isinstance(about, dict) and about["seed"] == 7


def test_how_a_prompt_is_read_is_in_the_answer(url: str) -> None:
    notes = post(url, "txt2img", {**SMALL, "prompt": "파란 배경 위의 빨간 별", "steps": 1}).json()["notes"]
    assert any("is read as" in note for note in notes)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"enable_hr": True, "hr_upscaler": "ESRGAN"}, "no 'hr_upscaler: ESRGAN'; leave it out"),
        ({"enable_hr": True, "hr_scale": 8, "width": 128, "height": 128}, "larger than this server makes"),
        ({"restore_faces": True, "styles": ["a"]}, "no 'restore_faces', 'styles'; leave them out"),
        ({"sampler_name": "Euler", "scheduler": "exponential"}, "no scheduler 'exponential'"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "x"}]}}}, "no 'alwayson_scripts: ControlNet'"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, "no 'CLIP_stop_at_last_layers'"),
        ({"no_such_field": 1}, "no 'no_such_field'"),
        ({"sampler_name": "UniPC"}, "no sampler 'UniPC'"),
        ({"sampler_name": "Euler a", "eta": 0.5}, "'eta' of an ancestral sampler"),
        ({"steps": "many"}, "'steps' must be a whole number, got 'many'"),
        ({"cfg_scale": "inf"}, "'cfg_scale' must be a number"),
        ({"width": 0}, "'width' must be at least 1"),
        ({"width": 63}, "width (W) 63 is not a multiple of 8; 56 or 64 would be right"),
        ({"width": 4096, "height": 4096}, "larger than this server makes"),
        ({"width": 10**9, "height": None}, "larger than this server makes"),
        ({"batch_size": 5}, "5 pictures are more than 4"),
        ({"steps": 10**9}, "steps are more than 150"),
        ({"seed": 2**80}, "seed"),
        ({"override_settings": {"sd_model_checkpoint": "none"}}, "no model 'none'"),
        ({"prompt": "a <lora:nowhere:1>"}, "nowhere"),
    ],
)
def test_what_does_not_exist_or_fit_is_named_in_a_sentence(url: str, more: dict[str, Any], named: str) -> None:
    answer = post(url, "txt2img", {**SMALL, **more})
    assert answer.status_code == 422 and named in answer.json()["detail"]


def test_what_clients_send_along_without_a_meaning_is_no_obstacle(url: str) -> None:
    neutral = {
        "enable_hr": False, "hr_scale": 2, "denoising_strength": 0.7, "styles": [], "subseed": -1,
        "subseed_strength": 0.0, "script_name": None, "script_args": [], "scheduler": "automatic", "eta": 1.0,
        "sampler_name": "Euler a", "alwayson_scripts": {"ADetailer": {"args": [False]}, "ControlNet": {"args": []}},
    }  # fmt: skip
    assert post(url, "txt2img", {**SMALL, "steps": 1, **neutral}).status_code == 200


def test_settings_that_are_not_here_are_named(url: str) -> None:
    answer = post(url, "options", {"sd_model_checkpoint": "tiny", "sd_vae": "other"})
    assert answer.status_code == 422 and "no 'sd_vae'" in answer.json()["detail"]


def test_a_request_is_interrupted_and_what_is_finished_comes_back(url: str, desk: Desk) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, url, "txt2img", {**SMALL, "steps": 100, "n_iter": 4})
        until(lambda: desk.current is not None and desk.current.step > 3, "it did not begin")
        seen = requests.get(f"{url}/sdapi/v1/progress", timeout=60).json()
        assert 0 < seen["progress"] < 1 and seen["state"]["sampling_steps"] == 100 and seen["eta_relative"] > 0
        post(url, "interrupt", {})
        info = json.loads(answer.result(60).json()["info"])
    assert len(info["all_seeds"]) < 4


def test_a_picture_that_is_none_is_a_sentence(url: str) -> None:
    for image, sentence in (("%%%", "no base64"), ("aGVsbG8=", "not a picture"), (7, "a picture in base64 is missing")):
        answer = post(url, "png-info", {"image": image})
        assert answer.status_code == 422 and sentence in answer.json()["detail"]
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    assert post(url, "png-info", {"image": base64.b64encode(buffer.getvalue()).decode()}).json()["info"] == ""


def test_a_request_leaves_nothing_on_the_model_for_the_next(url: str, desk: Desk) -> None:
    before = post(url, "txt2img", SMALL).json()["images"]
    post(url, "txt2img", {**SMALL, "prompt": "一颗 (red:1.5) star", "negative_prompt": "blue"})
    assert post(url, "txt2img", SMALL).json()["images"] == before


@pytest.mark.parametrize(
    ("headers", "code", "sentence"),
    [
        ({"Host": "evil.example"}, 400, "this address is '127.0.0.1', not 'evil.example'"),
        ({"Host": "evil.example:7860"}, 400, "not 'evil.example:7860'"),
        ({"Origin": "http://evil.example"}, 403, "a page of 'http://evil.example' may not ask here"),
    ],
)
def test_strangers_are_turned_away(url: str, headers: dict[str, str], code: int, sentence: str) -> None:
    answer = post(url, "options", {"sd_model_checkpoint": "tiny"}, headers=headers)
    assert answer.status_code == code and sentence in answer.json()["detail"]


def test_a_form_of_another_page_cannot_ask(url: str) -> None:
    text = json.dumps({"sd_model_checkpoint": "tiny"})
    answer = requests.post(f"{url}/sdapi/v1/options", data=text, headers={"Content-Type": "text/plain"}, timeout=60)
    assert answer.status_code == 422


def test_a_body_without_end_is_refused(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(80):
            yield b" " * 2**20

    for body in (b" " * (65 * 2**20), endless()):
        try:
            answer = requests.post(f"{url}/sdapi/v1/png-info", data=body, timeout=60)
        except requests.ConnectionError:  # the server did not wait for the rest
            continue
        assert answer.status_code == 413 and "64 MB at most" in answer.json()["detail"]


def test_other_machines_need_a_token() -> None:
    desk = Desk()
    rules = rules_for("0.0.0.0", None)
    app = make_app(desk, rules)
    add_routes(app, desk, Path("unused"), Limits())
    assert rules.token and rules_for("127.0.0.1", None).token == ""
    desk.start, desk.stop = lambda: None, lambda: None  # type: ignore[method-assign]
    with serving(app) as url:
        path = f"{url}/sdapi/v1/samplers"
        assert requests.get(path, timeout=60).status_code == 401
        assert requests.get(path, headers={"Authorization": "Bearer wrong"}, timeout=60).status_code == 401
        assert requests.get(path, headers={"Authorization": "Basic !!"}, timeout=60).status_code == 401
        assert requests.get(path, headers={"Authorization": f"Bearer {rules.token}"}, timeout=60).status_code == 200
        client = webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1", username="anybody", password=rules.token)
        assert "DDIM" in client.util_get_sampler_names()
