"""Hugging Face's Trainer, as train_cpu.py has it take part. Needs torch, transformers, accelerate, numpy and psutil.

It is used as it comes, but for the order of rows, which is the others'. Reads ``rows.npy`` and the folder
``hugging_face`` in ``--out``, writes ``trainer.json``.
"""

import argparse
from typing import Any

import numpy as np
import torch
from train_turns import Noted, write_json
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments


class InOrder(Trainer):  # type: ignore[misc]
    """Rows in their order; the loss of each step stays at hand."""

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        loss = super().training_step(*arguments, **named)
        self.last_loss = float(loss)
        return loss


class TakesTurns(TrainerCallback):  # type: ignore[misc]
    """Stops the process where its turn is over."""

    def __init__(self, turns: Noted) -> None:
        self.turns, self.trainer = turns, None

    def on_step_begin(self, *arguments: Any, **named: Any) -> None:
        self.turns.before_step()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        assert self.trainer is not None, "set before training begins"
        self.turns.after_step(self.trainer.last_loss)


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--shape", help="not needed: it is that of the folder")
    for name in ("batch-rows", "threads", "rounds", "block", "warm-up"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = TrainingArguments(
        output_dir=f"{options.out}/trainer",
        max_steps=options.warm_up + options.rounds * options.block,
        per_device_train_batch_size=options.batch_rows,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    rows = torch.from_numpy(np.load(f"{options.out}/rows.npy")).flatten(0, 1)
    data = [{"input_ids": row[:-1], "labels": row[:-1], "shift_labels": row[1:]} for row in rows]
    model = AutoModelForCausalLM.from_pretrained(f"{options.out}/hugging_face", dtype=torch.float32)
    turns = TakesTurns(Noted(options.warm_up, options.block))
    turns.trainer = InOrder(model=model, args=settings, train_dataset=data, callbacks=[turns])
    turns.trainer.train()
    write_json(turns.turns.figures(), f"{options.out}/trainer.json")


if __name__ == "__main__":
    main()
