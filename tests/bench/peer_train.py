"""A peer for training: SAELens' own trainer (TopKTrainingSAE and its kind, Adam, clipping) on the same shapes, in turns with bench_train.

    PYTHON tests/bench/peer_train.py --bench build/release/bench/bench_train [--kind topk] [--shape 768,4096,32,1024] [--rounds 3]

Timed on both sides: whole steps on rows that are there already, f32, one thread each, in time of the processor. SAELens' sparse decoder (use_sparse_activations) does not train on
processors with torch 2.15."""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def import_peer():
    try:
        import torch
        import sae_lens
    except ImportError as error:
        print(f"skip: the SAELens peer ({error}; run it with a Python that has torch and sae_lens)")
        sys.exit(0)
    return torch, sae_lens


def make_trainer(kind, width, features, k, batch, steps):
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer
    shape = {"d_in": width, "d_sae": features, "dtype": "float32", "device": "cpu"}
    if kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=k, **shape))
    elif kind == "batchtopk":
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=k, **shape))
    elif kind == "jumprelu":
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=5, l1_warm_up_steps=max(1, steps // 20), **shape))
    config = SAETrainerConfig(total_training_samples=steps * batch, train_batch_size_samples=batch, lr=3e-4, lr_end=3e-5)
    return SAETrainer(config, sae, iter(()))


def rows(torch, width, batch, directions):
    x = torch.zeros(batch, width)
    which = torch.randint(0, 2000, (batch, 24))
    much = 4 * torch.rand(batch, 24, 1)
    return x + (much * directions[which]).sum(1)


def theirs(torch, kind, shape, steps):
    width, features, k, batch = shape
    trainer = make_trainer(kind, width, features, k, batch, steps)
    directions = torch.rand(2000, width) - 0.5
    first = rows(torch, width, batch, directions)
    trainer.activation_scaler.scaling_factor = float(width ** 0.5 / first.norm(dim=-1).mean())
    times = []
    for _ in range(steps):
        x = rows(torch, width, batch, directions)
        begin = time.process_time()
        trainer.step(x)
        trainer.n_training_steps += 1
        times.append((time.process_time() - begin) * 1e3)
    return statistics.median(times[steps // 3:])


def ours(bench, kind, shape, steps):
    out = subprocess.run([bench, kind, *map(str, shape), str(steps)], capture_output=True, text=True, check=True, env={**os.environ, "STEERD_THREADS": "1"}).stdout
    return float(re.search(r"([0-9.]+) ms a step", out)[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--kind", default="topk")
    parser.add_argument("--shape", default="768,4096,32,1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=9)
    options = parser.parse_args()
    torch, _ = import_peer()
    torch.set_num_threads(1)
    shape = [int(n) for n in options.shape.split(",")]
    ratios = []
    for _ in range(options.rounds):
        mine = ours(options.bench, options.kind, shape, options.steps)
        other = theirs(torch, options.kind, shape, options.steps)
        ratios.append(other / mine)
        print(f"{options.kind} {options.shape}: steerd {mine:.1f} ms a step, SAELens {other:.1f} ms: {other / mine:.2f} times", flush=True)
    print(f"median {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
