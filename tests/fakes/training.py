"""A bi-encoder in a real Trainer, on a loss that needs no retrieval: seconds for a whole run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from retrodistill.models.students.dense import load_bi_encoder
from retrodistill.stages.training.tracking import StudentTrainer

TEXTS = ["blood pressure", "heart disease", "small cell", "sleep and stress", "milk protein"]


class PullApart(nn.Module):
    """Pushes the vectors of a batch's texts apart; dropout makes it depend on random numbers."""

    def __init__(self, folder: Path, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.model = load_bi_encoder(str(folder), torch.device("cpu"))
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.losses: dict[str, float] = {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors = self.model(features)["sentence_embedding"]
        near = (vectors @ vectors.T).square().mean()
        size = vectors.square().mean()
        self.losses = {"near": float(near.detach()), "size": float(size.detach())}
        return {"loss": near + size}


def run(
    task: PullApart,
    folder: Path,
    *,
    steps: int,
    callbacks: Sequence[TrainerCallback] = (),
    reports: Sequence[Callable[[], Any]] = (),
    save_steps: int = 0,
    resume: Path | None = None,
    logging_steps: int = 2,
) -> StudentTrainer:
    """Train for `steps`, or resume from a checkpoint, and return the trainer."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=steps,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or steps,
        logging_steps=logging_steps,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        seed=7,
    )
    tokenizer = task.model.tokenizer

    def collate(texts: Sequence[str]) -> dict[str, Tensor]:
        tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    trainer = StudentTrainer(
        model=task,
        args=arguments,
        train_dataset=[TEXTS[position % len(TEXTS)] for position in range(2 * steps)],
        data_collator=collate,
        callbacks=list(callbacks),
        reports=reports,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def weights(task: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in task.named_parameters()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Assert that two sets of weights are bit-identical."""
    assert left.keys() == right.keys()
    for name, parameter in left.items():
        assert torch.equal(parameter, right[name]), name
