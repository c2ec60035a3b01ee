"""What txt2img is asked for: its options, and the prompts and seeds that they name, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ldm.languages import check_language
from ldm.models.diffusion.sampling import step_rule
from ldm.seeds import settled_seed
from ldm.texts import check_text, read_lines
from ldm.util import UserError, writable_folder
from ldm.workflows.batches import Batch, batches
from ldm.workflows.expansion import with_expansions
from ldm.workflows.extras import VARIATION, ExtraOptions, check_extras
from ldm.workflows.guide.options import GuideOptions
from ldm.workflows.guide.reading import Edit, Guide, read_edit, read_guide
from ldm.workflows.lora_calls import calls_in, without_calls
from ldm.workflows.prompt_lists import combinations, expanded, several
from ldm.workflows.xl_options import RefinerOptions, SizeOptions

PROMPT = "a red circle on a blue background"


@dataclass
class Txt2ImgOptions(RefinerOptions, SizeOptions, GuideOptions, ExtraOptions):
    """What to make, how, and where to put it. None means: as the model's YAML says under ``inference:``, else usual.

    Each picture has a seed of its own, ``seed`` + its number, so that it can be made again alone.
    """

    prompt: str = PROMPT
    negative_prompt: str = ""  # what guidance leads away from
    long_prompts: bool | None = None  # CLIP's encoders read a prompt in chunks of 75 tokens; BREAK ends one
    lang: str = "auto"  # of the prompts: en, ko, zh, or auto, by each one's script
    from_file: str | None = None  # one prompt a line, in place of ``prompt``
    repeat: int = 1  # each prompt of the file so many times, one after the other
    outdir: str = "outputs/txt2img-samples"
    skip_grid: bool = False  # no contact sheet
    skip_save: bool = False  # no single pictures
    ckpt: str | None = None  # None: the small model of this repository
    config: str | None = None  # None: config.yaml beside the checkpoint, or the one that its shapes tell
    vae: str | None = None  # weights of an autoencoder in place of the checkpoint's
    embedding_path: str | Sequence[str] | None = None  # files of learned words; "path=<new>" renames the one inside
    adapter_path: str | None = None  # adapters of the text encoder that were learned with the words
    lora: str | Sequence[str] | None = None  # LoRA files: FILE, FILE=0.8, FILE=0.8@output_blocks
    lora_dir: str | None = None  # where <lora:name:0.8> in prompts looks for files; models/lora
    lora_dora: str = "interpolate"  # how scales other than 1 act with DoRA; producer: as its maker's program has it
    steps: int | None = None  # 50
    sampler: str | None = None  # ddim
    eta: float = 0.0  # fresh noise in DDIM: 0 none, 1 as DDPM
    noise_scale: float | None = None  # 1; times the start noise of a picture that begins from noise alone
    settle: int | None = None  # 0; noises over whose mean a picture from a prompt alone is settled at the end
    guidance_scale: float | None = None  # 7.5; 1 is without guidance, at half the work
    height: int | None = None  # pixels; the size that the model was trained at
    width: int | None = None
    channels: int | None = None  # of the latent; only checked
    factor: int | None = None  # of a latent's size to the picture's; only checked
    seed: int = 42  # of the first picture; -1 draws one
    fixed_code: bool = False  # the same start noise for every batch
    n_iter: int = 1  # batches for a prompt, or passes over the file
    n_samples: int = 4  # pictures in a batch
    n_rows: int = 0  # columns of the contact sheet; 0: n_samples
    precision: str = "autocast"  # full, autocast (mixed on a GPU), bf16, fp16
    device: str | None = None  # None: a GPU if there is one
    progress: bool = True


@dataclass(frozen=True)
class Request:
    """What is to be made: the prompts, the first seed, and all pictures batch by batch."""

    prompts: list[str]
    negative_prompt: str
    seed: int
    batches: list[Batch]
    guide: Guide | None = None  # by attention
    edit: Edit | None = None

    @property
    def read_prompts(self) -> list[str]:
        """The prompts as the encoder reads them: without the LoRAs that they call."""
        return [without_calls(prompt) for prompt in self.prompts]

    @property
    def texts(self) -> list[str]:
        """All that is read: the prompts, and the negative one where there is one."""
        return [*self.read_prompts, *filter(None, [self.negative_prompt])]


def read_request(options: Txt2ImgOptions) -> Request:
    """The request of some options, with what can be refused before a model is loaded refused.

    One prompt, and each of several that ``|`` parts, gives ``n_iter`` batches of ``n_samples`` pictures; a file gives
    each of its prompts ``n_iter`` times, in batches of ``n_samples``.

    Raises:
        UserError: an unknown sampler or language, an eta that the sampler does not take, a count below 1, a seed that
            no generator takes, a prompt or file of prompts that is no text, boxes that are none, or an ``outdir`` that
            is a file.
    """
    check_language(options.lang, "auto")
    check_extras(options)
    guide, edit = read_guide(options), read_edit(options)
    options.check_sizes()
    options.check_refiner()
    if options.sampler is not None:
        step_rule(options.sampler, options.eta)
    for name in ("n_iter", "n_samples", "repeat"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.n_rows < 0:
        raise UserError(f"--n_rows must not be negative, got {options.n_rows}")
    if not (options.skip_save and options.skip_grid):
        writable_folder(options.outdir, "--outdir")
    prompts = prompts_of(options)
    written = options.prompt if options.from_file is None else prompts[0]
    texts = ((written, "the prompt"), (options.negative_prompt, "the negative prompt"), (options.edit, "the edit"))
    for text, what in texts:
        check_text(text or "", what)
    if options.is_edited and (options.is_varied or options.hires is not None):
        raise UserError("--edit and --reweight do not go together with --variation_seed or --hires")
    if options.edit is not None and options.expand is not None:
        raise UserError("--edit goes word by word along the prompt, which --expand makes longer: give one of them")
    if options.edit is not None and len(prompts) > 1:
        raise UserError("--edit is another prompt for one prompt; a file of several takes --reweight alone")
    if calls_in(options.negative_prompt):
        raise UserError("a LoRA is called in the prompt, not in the negative one, where it has no meaning")
    seed, made = batches_of(options, prompts)
    texts_of_all = list(dict.fromkeys(prompt for batch in made for prompt in batch.prompts))
    for prompt in texts_of_all:
        calls_in(prompt)
    return Request(texts_of_all, options.negative_prompt, seed, made, guide, edit)


def prompts_of(options: Txt2ImgOptions) -> list[str]:
    """The prompts of a request before choices in them are made: of its file, or those that its one line stands for.

    Raises:
        UserError: the file cannot be read or is empty, or the line stands for too many.
    """
    if options.from_file is not None:
        prompts = read_lines(options.from_file, "prompt file")
        if not prompts:
            raise UserError(f"the prompt file '{options.from_file}' is empty; it should hold one prompt a line")
        return prompts
    return combinations(options.prompt) if options.prompt_matrix else several(options.prompt)


def batches_of(options: Txt2ImgOptions, prompts: Sequence[str]) -> tuple[int, list[Batch]]:
    """The first seed, and all batches, with the choices in each picture's prompt made, and gone on with.

    Each of several prompts of one line gets the seeds that it would get alone. Variations have one seed, and seeds of
    their own for what they are varied towards.

    Raises:
        UserError: a seed that no generator takes, a wildcard that is not there, or no model that goes on with prompts.
    """
    if options.from_file is None:
        rows = [[prompt] * options.n_samples for prompt in prompts]
    else:
        rows = [[prompt for prompt in prompts for _ in range(options.repeat)]]
    pictures, size = options.n_iter * len(rows[0]), options.n_samples
    seed = settled_seed(options.seed, 1 if options.is_varied else pictures)
    first = seed
    if options.variation_seed is not None:
        first = settled_seed(options.variation_seed, pictures)
    made = [one for row in rows for one in batches(row, size, options.n_iter, first, options.fixed_code)]
    if options.variation_seed is not None:
        strength = VARIATION if options.variation_strength is None else options.variation_strength
        made = [
            replace(one, seeds=[seed] * len(one.seeds), varied=tuple(one.seeds), strength=strength) for one in made
        ]
    return seed, with_expansions([_chosen(one, options.wildcards) for one in made], options.expand)


def _chosen(batch: Batch, wildcards: str | None) -> Batch:
    """A batch with the choices in each prompt made, by the picture's seed."""
    pairs = zip(batch.prompts, batch.seeds, strict=True)
    return replace(batch, prompts=[expanded(prompt, seed, wildcards) for prompt, seed in pairs])
