"""The student of two steps: its coordinates, what it is taught and where it starts from, against diffusers' own schedulers and pipeline."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from core.device import compute_precision
from diffusion.families import usual_sampling
from diffusion.mini import MINI_DIRECTORY, distil, trajectories
from diffusion.mini.distil import DistilConfig, angles_of, main, on_the_way, own_states, student_loss
from diffusion.mini.networks import (
    build_autoencoder,
    build_pipeline,
    build_prompt_tokenizer,
    build_scheduler,
    build_student_scheduler,
    build_text_encoder,
    build_unet,
    student_of,
)
from diffusion.mini.train import export_pipeline
from diffusion.mini.trajectories import trajectory
from diffusion.mini.world import random_scenes, read_slots
from diffusion.pipelines import PipelineError, load_pipeline, synthesize
from inference import PromptInverter

LEFT = [1000, 917, 833, 750, 667, 583, 500, 417, 333, 250, 167, 83, 0]  # timesteps that the teacher's twelve steps leave


@pytest.fixture(scope="module")
def teacher() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = build_prompt_tokenizer([prompt for _, prompt in itertools.islice(random_scenes(0, held_out=False), 200)])
    text_encoder = build_text_encoder(len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id)
    pipeline = build_pipeline(build_autoencoder(), build_unet(), text_encoder, tokenizer, build_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler_of() -> DDIMScheduler:
    scheduler = build_student_scheduler()
    scheduler.set_timesteps(2)
    return scheduler


def straight(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean latents, noise and (n, 13, 6, 16, 16) states of ways on which both are foreseen rightly from the first step on."""
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, n, 6, 16, 16, generator=generator)
    scheduler = scheduler_of()
    states = [scheduler.add_noise(clean, noise, torch.full((n,), left - 1)) if left else clean for left in LEFT]
    return clean, noise, torch.stack(states, dim=1)


class Right(torch.nn.Module):
    """Gives diffusers' velocity of known latents and noise, whatever it sees, plus an error."""

    def __init__(self, clean: torch.Tensor, noise: torch.Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.clean, self.noise, self.error, self.seen = clean, noise, error, list[tuple[torch.Tensor, torch.Tensor]]()

    def forward(self, states: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor) -> object:
        self.seen.append((states, timesteps))
        which = encoder_hidden_states[:, 0, 0].long()
        velocity = scheduler_of().get_velocity(self.clean[which], self.noise[which], timesteps)
        return type("Output", (), {"sample": velocity + self.error})


def test_the_trajectory_is_the_way_of_the_pipeline(teacher: StableDiffusionPipeline) -> None:
    prompts = ["a red fox in a forest", "an owl, beach, neon"]
    noise = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(3))
    tokens = torch.tensor(teacher.tokenizer(prompts, padding="max_length", truncation=True).input_ids)
    states: list[torch.Tensor] = []
    teacher(
        prompts, latents=noise, num_inference_steps=12, guidance_scale=4.0, output_type="latent",
        callback_on_step_end=lambda _, step, time, values: states.append(values["latents"]) or {},
    )  # fmt: skip
    found = trajectory(teacher, noise, tokens, 12)
    assert torch.equal(found[:, 0], noise)
    torch.testing.assert_close(found[:, 1:], torch.stack(states, 1), atol=2e-4, rtol=1e-3)
    assert (found[:, 12] - found[:, 0]).abs().mean() > 0.1


def test_the_trajectory_of_a_student_is_its_pipelines_without_guidance(teacher: StableDiffusionPipeline) -> None:
    student = build_pipeline(teacher.vae, student_of(teacher.unet), teacher.text_encoder, teacher.tokenizer, build_student_scheduler())
    student.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(3))
    tokens = torch.tensor(student.tokenizer(["a red fox"], padding="max_length", truncation=True).input_ids)
    last = student("a red fox", latents=noise, num_inference_steps=4, output_type="latent").images
    found = trajectory(student, noise, tokens, 4)
    assert found.shape == (1, 5, 6, 16, 16)
    torch.testing.assert_close(found[:, 4], last, atol=2e-4, rtol=1e-3)


def test_between_two_states_lies_what_the_scheduler_would_have_noised() -> None:
    clean, noise, states = straight(1000)
    left = torch.arange(1, 1001)
    found = on_the_way(angles_of(scheduler_of().alphas_cumprod), states, left)
    torch.testing.assert_close(found, scheduler_of().add_noise(clean, noise, left - 1), atol=1e-4, rtol=1e-4)


def test_the_students_own_states_are_those_of_two_steps_of_ddim(teacher: StableDiffusionPipeline) -> None:
    torch.manual_seed(0)
    unet, noise, hidden = student_of(teacher.unet), torch.randn(6, 6, 16, 16), torch.randn(6, 5, 128)
    steps = torch.tensor([0, 1, 1, 0, 1, 1])
    scheduler, states = scheduler_of(), [noise]
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            velocity = unet(states[-1], timestep, encoder_hidden_states=hidden).sample
            states.append(scheduler.step(velocity, timestep, states[-1]).prev_sample)
    found = own_states(unet, angles_of(scheduler.alphas_cumprod), noise, hidden, steps)
    expected = torch.stack([states[step][row] for row, step in enumerate(steps.tolist())])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_student_that_does_in_one_step_what_the_teacher_did_in_six_has_no_loss(seed: int) -> None:
    clean, noise, states = straight(64)
    which = torch.arange(64.0)[:, None, None].expand(64, 2, 8)
    angles = angles_of(scheduler_of().alphas_cumprod)
    torch.manual_seed(seed)
    right = Right(clean, noise)
    assert float(student_loss(right, angles, states, which)) < 1e-6
    states_seen, timesteps = right.seen[-1]
    start = sorted(set(timesteps.tolist()))
    assert {499, 999} <= set(start)
    assert len(start) > 6  # and some between
    assert sum(timestep == 999 for timestep in timesteps.tolist()) >= 16  # enough of the first step, which decides what is seen
    torch.manual_seed(seed)
    wrong = Right(clean, noise, error=0.1)
    assert float(student_loss(wrong, angles, states, which)) > 0.01 * 0.9  # squared, and more where it starts from its own mistakes
    torch.manual_seed(seed)
    assert (wrong.seen[-1][0] - states_seen).abs().amax((1, 2, 3)).gt(1e-3).sum() == 28  # almost half of the batch does


def test_the_goal_is_the_teachers_state_and_not_what_lies_straight_ahead() -> None:
    """Ways that bend: every segment ends somewhere else. What the student is asked for must end there, by diffusers' own step."""
    torch.manual_seed(0)
    states = torch.randn(64, 13, 6, 16, 16)
    scheduler, asked = scheduler_of(), []

    class Zero(torch.nn.Module):
        def forward(self, states: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor) -> object:
            asked.append((states, timesteps, encoder_hidden_states[:, 0, 0].long()))
            return type("Output", (), {"sample": torch.zeros_like(states)})

    which = torch.arange(64.0)[:, None, None].expand(64, 2, 8)
    loss = student_loss(Zero(), angles_of(scheduler.alphas_cumprod), states, which)
    starts, timesteps, rows = asked[-1]
    squares = []
    for start, timestep, row in zip(starts, timesteps.tolist(), rows.tolist(), strict=True):
        segment = 1 - timestep // 500
        after = scheduler.alphas_cumprod[499] if segment == 0 else torch.tensor(1.0)
        before = scheduler.alphas_cumprod[timestep]
        goal = states[row, 6 * (segment + 1)]
        # x_s = sqrt(a_s) x0 + sqrt(1 - a_s) eps, x0 = sqrt(a_t) x - sqrt(1 - a_t) v, eps = sqrt(a_t) v + sqrt(1 - a_t) x, solved for v
        ahead = (after.sqrt() * before.sqrt() + (1 - after).sqrt() * (1 - before).sqrt()) * start
        velocity = (goal - ahead) / ((1 - after).sqrt() * before.sqrt() - after.sqrt() * (1 - before).sqrt())
        squares.append(float(velocity.square().mean()))
    assert float(loss) == pytest.approx(np.mean(squares), rel=1e-2)


def test_the_student_needs_no_second_pass_whatever_guidance_is_asked_for(teacher: StableDiffusionPipeline) -> None:
    unet = student_of(teacher.unet)
    pipeline = build_pipeline(teacher.vae, unet, teacher.text_encoder, teacher.tokenizer, build_student_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    passes: list[torch.Size] = []
    unet.register_forward_pre_hook(lambda module, arguments: passes.append(arguments[0].shape))
    pictures = [
        pipeline("a cat", num_inference_steps=4, guidance_scale=scale, generator=torch.Generator().manual_seed(0), output_type="np").images
        for scale in (1.0, 4.0, 7.5)
    ]
    assert passes == [torch.Size([1, 6, 16, 16])] * 12
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])
    noise, hidden = torch.randn(1, 6, 16, 16), torch.randn(1, 4, 128)
    with torch.no_grad():
        ours, theirs = (one(noise, 300, encoder_hidden_states=hidden).sample for one in (unet, teacher.unet))
    torch.testing.assert_close(ours, theirs)
    assert usual_sampling(pipeline, "a directory") == (2, 1.0)
    with pytest.raises(PipelineError, match="leave --negative-prompt out"):
        synthesize(pipeline, ["a cat"], [1], steps=4, guidance_scale=1.0, negative_prompt="a dog")


@pytest.mark.slow
def test_another_teacher_needs_another_directory(teacher: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_pipeline(teacher, tmp_path / "teacher")
    monkeypatch.setattr(trajectories, "CHUNK", 8)
    monkeypatch.setattr(distil, "fit", lambda *_, **__: None)
    monkeypatch.setattr(distil, "replace_pipeline", lambda *_: None)
    config = DistilConfig(teacher=tmp_path / "teacher", run_dir=tmp_path / "run", out=tmp_path / "out", trajectories=16)
    main(config)
    stored = sorted((tmp_path / "run" / "trajectories").iterdir())
    assert [path.name for path in stored] == ["states-00000.npy", "states-00001.npy", "tokens-00000.npy", "tokens-00001.npy"]
    first = np.load(stored[0])
    assert first.shape == (8, 13, 6, 16, 16)
    stored[1].unlink()  # as if it had been interrupted: what is there stays, what is missing comes again as it was
    before = stored[0].stat().st_mtime_ns
    main(config)
    assert stored[0].stat().st_mtime_ns == before
    assert np.load(stored[1]).shape == first.shape
    assert not np.array_equal(np.load(stored[1])[:, 0], first[:, 0])
    with torch.no_grad():
        teacher.unet.conv_in.weight.mul_(1.5)
    export_pipeline(teacher, tmp_path / "teacher")
    with pytest.raises(ValueError, match=r"was begun with something else \(teacher: sha256:"):
        main(config)
    with pytest.raises(ValueError, match="how to have the shipped model's teachers"):
        main(dataclasses.replace(config, teacher=tmp_path / "nowhere"))
    for steps in (2, 3):
        with pytest.raises(ValueError, match=f"--teacher-steps {steps} is no multiple of the student's 2 steps"):
            main(dataclasses.replace(config, teacher_steps=steps))
    for start in (tmp_path / "teacher", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"--start-from .* holds no student"):
            main(dataclasses.replace(config, start_from=start))


def test_trajectories_are_of_scenes_to_be_learnt_and_of_the_seed(
    teacher: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []
    real = trajectories.random_scenes
    monkeypatch.setattr(trajectories, "CHUNK", 2)
    monkeypatch.setattr(trajectories, "random_scenes", lambda seed, held_out: asked.append((seed, held_out)) or real(seed, held_out=held_out))
    for seed in (0, 1):
        trajectories.make_trajectories(tmp_path / str(seed), 4, teacher, steps=12, seed=seed, accelerator=Accelerator(cpu=True))
    assert not any(held_out for _, held_out in asked)
    assert len({seed for seed, _ in asked}) == 4  # two chunks of two seeds
    noise = [np.load(file)[:, 0].tobytes() for file in sorted(tmp_path.glob("*/states-*.npy"))]
    assert len(set(noise)) == 4


@pytest.mark.slow
def test_a_student_goes_on_from_another(teacher: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[UNet2DConditionModel] = []
    monkeypatch.setattr(trajectories, "CHUNK", 2)
    monkeypatch.setattr(distil, "fit", lambda module, *_, **__: begun.append(module) if isinstance(module, UNet2DConditionModel) else None)
    monkeypatch.setattr(distil, "replace_pipeline", lambda *_: None)
    student = student_of(teacher.unet)
    with torch.no_grad():
        student.conv_in.weight.add_(1.0)
    export_pipeline(teacher, tmp_path / "teacher")
    export_pipeline(build_pipeline(teacher.vae, student, teacher.text_encoder, teacher.tokenizer, build_student_scheduler()), tmp_path / "student")
    config = DistilConfig(teacher=tmp_path / "teacher", run_dir=tmp_path / "run", out=tmp_path / "out", trajectories=2)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="is of another shape"):
        patch.setattr(distil, "UNet2DConditionModel", SimpleNamespace(from_pretrained=lambda *_, **__: torch.nn.Linear(1, 1)))
        main(dataclasses.replace(config, start_from=tmp_path / "student"))
    assert not config.run_dir.exists()  # nothing was begun or painted
    main(dataclasses.replace(config, start_from=tmp_path / "student"))
    torch.testing.assert_close(begun[0].conv_in.weight, student.conv_in.weight, atol=1e-3, rtol=1e-3)
    for other in ({"start_from": None}, {"start_from": tmp_path / "student", "seed": 1}, {"start_from": tmp_path / "student", "batch_size": 32}):
        with pytest.raises(ValueError, match="was begun with something else"):
            main(dataclasses.replace(config, **other))
    main(dataclasses.replace(config, run_dir=tmp_path / "from_teacher"))
    torch.testing.assert_close(begun[1].conv_in.weight, teacher.unet.conv_in.weight, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_from_a_teacher_to_a_student_that_diffusers_loads(teacher: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_pipeline(teacher, tmp_path / "teacher")
    monkeypatch.setattr(trajectories, "CHUNK", 8)
    config = DistilConfig(
        teacher=tmp_path / "teacher", run_dir=tmp_path / "run", out=tmp_path / "out", trajectories=16, samples=48, decoder_samples=96, batch_size=16
    )
    main(config)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    assert np.asarray(pipeline("a cat, snow", num_inference_steps=4).images[0]).shape == (64, 64, 3)
    moved = (pipeline.unet.conv_in.weight - teacher.unet.conv_in.weight).abs().max()
    assert 0 < moved < 0.02
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(pipeline.vae.encoder(images), teacher.vae.encoder(images), atol=0.02)  # in half precision
    weights = [sum(parameter.numel() for parameter in vae.decoder.parameters()) for vae in (pipeline.vae, teacher.vae)]
    assert weights[0] < 0.6 * weights[1]
    assert "git archive" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_the_shipped_model_paints_what_it_is_asked_for() -> None:
    """In two steps, and as whoever names no steps gets it, in 50."""
    scenes = list(itertools.islice(random_scenes(99, held_out=True), 48))
    prompts = [prompt for _, prompt in scenes]
    pipeline = load_pipeline("mini", device=torch.device("cpu"))
    assert usual_sampling(pipeline, "mini") == (2, 1.0)
    few = list(synthesize(pipeline, prompts, range(48), steps=2, guidance_scale=1.0))
    stock = StableDiffusionPipeline.from_pretrained(MINI_DIRECTORY, dtype=compute_precision(torch.device("cpu")).dtype)
    stock.set_progress_bar_config(disable=True)
    many = stock(prompts[:16], generator=[torch.Generator().manual_seed(seed) for seed in range(16)]).images
    reader = PromptInverter.from_pretrained("assets/mini-inverter")
    for pictures, most in ((few, 5), (many, 4)):  # of 48 and of 16; the teacher's picture of one scene in ten is misread too
        found = [read_slots(prediction.prompt) for prediction in reader.predict(pictures)]
        truths = [scene.slots() for scene, _ in scenes[: len(found)]]
        for slot in ("subject", "background", "style"):
            assert sum(guess[slot] != truth[slot] for guess, truth in zip(found, truths, strict=True)) <= most, slot
