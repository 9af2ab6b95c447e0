#!/usr/bin/env python3
"""Twenty steps of every kind of training by SAELens' own trainer (sae_lens 6.54, torch), in float64, from given weights over given
rows. `python make.py` writes train.safetensors; the tests need neither package.

  x [STEPS * B, D]                rows, B a step
  enc [F, D], dec [F, D], b_enc [F], b_dec [D]     first weights; scale: what rows are multiplied by
  KIND/g_enc, g_dec, g_b_enc, g_b_dec              gradients of the first step, before clipping
  KIND/loss [STEPS, 3]            mean squared error, sparsity, auxiliary (of jumprelu the pre-activation loss)
  KIND/enc, dec, b_enc, b_dec     after the last step
  KIND/silent [F]                 features that were silent for long when it began (topk-dead)
  batchtopk/threshold [STEPS]     the smallest kept value of each step
  jumprelu-*/thresholds, g_thresholds [F]          of every feature: brought back to 0, as SAELens does before it reads them again
  KIND-to                         a transcoder from x to y [STEPS * B, D_OUT]; first weights to/dec [F, D_OUT], to/b_dec [D_OUT]

SAELens trains no transcoders: here its trainer is given rows of x and y side by side, its training class reads the first part without
b_dec (as its inference class for transcoders does) and takes the second for what is to be made. y is multiplied by SCALE_OUT.

The auxiliary loss of SAELens also takes values below 0; here relu comes first, as in the paper's code."""
import copy, dataclasses, os
import numpy as np
import torch
from safetensors.numpy import save_file
from sae_lens.config import SAETrainerConfig
from sae_lens.saes import topk_sae
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

here = os.path.dirname(os.path.abspath(__file__))
D, D_OUT, F, B, STEPS, K, SCALE, SCALE_OUT = 12, 10, 40, 24, 20, 5, 0.5, 0.75
rng = np.random.default_rng(7)


def f32(a):
    return np.asarray(a, np.float64).astype(np.float32)


# Rows of a few directions each, off the origin: something to learn.
directions = rng.normal(size=(30, D))
codes = rng.exponential(size=(STEPS * B, 30)) * (rng.random((STEPS * B, 30)) < 0.12)
start = {"x": f32(2 * codes @ directions + rng.normal(size=D)), "enc": f32(rng.normal(size=(F, D)) * 0.2),
         "b_enc": f32(rng.normal(size=F) * 0.05), "b_dec": f32(rng.normal(size=D) * 0.2)}
start["dec"] = f32(start["enc"] + rng.normal(size=(F, D)) * 0.05)
# What x's directions make of it, and something that nothing explains.
start["y"] = f32(np.maximum(codes @ rng.normal(size=(30, D_OUT)) - 0.3, 0) + rng.normal(size=(STEPS * B, D_OUT)) * 0.1 + rng.normal(size=D_OUT))
start["to/dec"], start["to/b_dec"] = f32(rng.normal(size=(F, D_OUT)) * 0.2), f32(rng.normal(size=D_OUT) * 0.2)
out = dict(start)

relu_first = topk_sae.calculate_topk_aux_acts
topk_sae.calculate_topk_aux_acts = lambda *args, **kwargs: relu_first(*args, **kwargs).relu()

KINDS = {
    "relu": (StandardTrainingSAE, StandardTrainingSAEConfig, dict(l1_coefficient=0.3, l1_warm_up_steps=8)),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, dict(k=K)),
    "topk-dead": (TopKTrainingSAE, TopKTrainingSAEConfig, dict(k=K)),
    "topk-few-dead": (TopKTrainingSAE, TopKTrainingSAEConfig, dict(k=K)),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, dict(k=K)),
    # Bandwidths that many rows come into, else little would be seen of what thresholds learn.
    "jumprelu-step": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig,
                      dict(jumprelu_init_threshold=0.2, jumprelu_bandwidth=0.7, l0_coefficient=0.4, l0_warm_up_steps=8)),
    "jumprelu-tanh": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig,
                      dict(jumprelu_init_threshold=0.2, jumprelu_bandwidth=0.7, l0_coefficient=0.4, jumprelu_tanh_scale=2.5,
                           jumprelu_sparsity_loss_mode="tanh", jumprelu_ste_to_input=True, pre_act_loss_coefficient=0.3)),
    "jumprelu-quadratic": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig,
                           dict(jumprelu_init_threshold=0.05, jumprelu_bandwidth=0.7, l0_coefficient=0.05, target_l0=24,  # some come to 0
                                jumprelu_sparsity_loss_mode="quadratic", jumprelu_ste_to_input=True)),
}
TO = "-to"
KINDS |= {kind + TO: KINDS[kind] for kind in ("relu", "topk-dead", "batchtopk", "jumprelu-step", "jumprelu-tanh")}


def transcoder(sae_class):
    class Transcoder(sae_class):
        def process_sae_in(self, sae_in):
            return self.read

        def training_forward_pass(self, step_input):
            self.read = step_input.sae_in[:, :D]
            return super().training_forward_pass(dataclasses.replace(step_input, sae_in=step_input.sae_in[:, D:]))

    return Transcoder


def make(kind):
    sae_class, config_class, options = KINDS[kind]
    to = kind.endswith(TO)
    if to:
        sae_class = transcoder(sae_class)
    torch.manual_seed(0)
    sae = sae_class(config_class(d_in=D, d_sae=F, dtype="float64", device="cpu", **options))
    with torch.no_grad():
        sae.W_enc.data = torch.tensor(start["enc"].T, dtype=torch.float64).contiguous()
        sae.W_dec.data = torch.tensor(start["to/dec" if to else "dec"], dtype=torch.float64)
        sae.b_enc.data = torch.tensor(start["b_enc"], dtype=torch.float64)
        sae.b_dec.data = torch.tensor(start["to/b_dec" if to else "b_dec"], dtype=torch.float64)
    config = SAETrainerConfig(total_training_samples=STEPS * B, train_batch_size_samples=B, lr=0.01, lr_warm_up_steps=4, lr_decay_steps=5, lr_end=0.001,
                              dead_feature_window=1000)
    trainer = SAETrainer(config, sae, iter(()))
    trainer.activation_scaler.scaling_factor = SCALE
    silent = np.zeros(F, np.float32)
    if kind.removesuffix(TO) in ("topk-dead", "jumprelu-tanh"):
        silent[::3] = 1
    if kind == "topk-few-dead":
        silent[[4, 9]] = 1
    trainer.n_forward_passes_since_fired += torch.tensor(silent) * 1001
    out[kind + "/silent"] = silent
    return sae, trainer


def step_input(trainer, batch):
    return TrainStepInput(sae_in=batch * SCALE, dead_neuron_mask=trainer.dead_neurons, coefficients=trainer.get_coefficients(),
                          n_training_steps=0, is_logging_step=False)


for kind in KINDS:
    sae, trainer = make(kind)
    rows = torch.tensor(start["x"], dtype=torch.float64)
    if kind.endswith(TO):
        rows = torch.cat([rows, torch.tensor(start["y"], dtype=torch.float64) * (SCALE_OUT / SCALE)], dim=1)
    first = copy.deepcopy(sae)
    first.training_forward_pass(step_input(trainer, rows[:B])).loss.backward()
    out[kind + "/g_enc"], out[kind + "/g_dec"] = f32(first.W_enc.grad.T), f32(first.W_dec.grad)
    out[kind + "/g_b_enc"], out[kind + "/g_b_dec"] = f32(first.b_enc.grad), f32(first.b_dec.grad)
    if hasattr(first, "threshold"):
        out[kind + "/g_thresholds"] = f32(first.threshold.grad)
    losses, least = [], []
    for s in range(STEPS):
        got = trainer.step(rows[s * B:(s + 1) * B])
        trainer.n_training_steps += 1
        parts = {k: float(v.detach()) for k, v in got.losses.items()}
        losses.append([parts["mse_loss"], parts.get("l1_loss", parts.get("l0_loss", 0)),
                       parts.get("auxiliary_reconstruction_loss", parts.get("pre_act_loss", 0))])
        acts = got.feature_acts.detach()
        least.append(float(acts[acts > 0].min()))
    out[kind + "/loss"] = f32(losses)
    out[kind + "/enc"], out[kind + "/dec"] = f32(sae.W_enc.detach().T), f32(sae.W_dec.detach())
    out[kind + "/b_enc"], out[kind + "/b_dec"] = f32(sae.b_enc.detach()), f32(sae.b_dec.detach())
    if hasattr(sae, "threshold"):
        out[kind + "/thresholds"] = f32(sae.threshold.detach().clamp(min=0))
        print("thresholds", float(sae.threshold.detach().min()), float(sae.threshold.detach().max()))
    if kind.removesuffix(TO) == "batchtopk":
        out[kind + "/threshold"] = f32(least)
    print(kind, losses[0], losses[-1])

save_file({k: np.ascontiguousarray(v) for k, v in sorted(out.items())}, os.path.join(here, "train.safetensors"))
