"""A teacher's hidden states, attention and token vectors, of the tokens that the student reads."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.data.store.lineage import Lineage, model_lineage
from retrodistill.stages.training.sources import SignalSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.models.students.token_states import TokenReader
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material

SAMPLED = 64
"""Texts of each side that both tokenizers must split alike."""


class StateSource(SignalSource):
    """Hidden states of layers, attention vectors of one, and token vectors, of a teacher.

    It reads the student's own tokens, prompts and pairs included, so it needs the student's
    tokenizer. It is a body without its head, or a late-interaction model where its token vectors
    are asked for, in evaluation mode; it gets no gradient and is not saved with the student.
    """

    name = "states"
    about = "a teacher's hidden states"
    example = "hidden-mse"
    gives = frozenset({"teacher_states", "teacher_attention_vectors", "teacher_token_vectors"})
    live = True
    opens_late = True

    def __init__(self, model: str) -> None:
        self.model = model
        self._layers: tuple[int, ...] = ()
        self._attention: int | None = None
        self._whole: Any = None
        """The late-interaction model around the body, where its token vectors are asked for."""
        self._batch: BatchRows | None = None
        self._signals: dict[str, Tensor] = {}

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the states of a folder's or a hub id's model; it is loaded later."""
        return cls(name)

    @property
    def fingerprint(self) -> str:
        """Hash of all that shapes a state."""
        from retrodistill.base.manifest import digest
        from retrodistill.models.inference import model_digest
        from retrodistill.models.students.towers import fingerprint

        if self._whole is not None:
            return digest(fingerprint(self._whole), str(self._dtype))
        weights = model_digest("", self.body.config, self.tokenizer, self.body)
        return digest(weights, str(self._dtype))

    @property
    def lineage(self) -> Lineage:
        """What the teacher was trained on."""
        return model_lineage(self.model)

    @property
    def teachers(self) -> Sequence[str]:
        """Name of the teacher, as it was given."""
        return (self.model,)

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Load the teacher.

        Raises:
            ConfigError: it cannot be loaded, or cannot read texts of the student's length.

        """
        from retrodistill.models.inference import body_dtype, pick_device, positions

        device = pick_device()
        if any("teacher_token_vectors" in term.signals for term in terms):
            self._whole = load_whole(self.model, device)
            self.body, self.tokenizer = self._whole[0].model, self._whole.tokenizer
        else:
            self.body, self.tokenizer = load_body(self.model)
        self.body.to(device).eval().requires_grad_(False)
        self._dtype = body_dtype(settings.teacher_precision, device)
        self._batch_tokens = settings.batch_tokens
        self._longest = positions(self.body)
        self._texts = [
            text
            for side in (material.collection.queries, material.collection.docs)
            for text in side.full_texts(np.arange(min(len(side), SAMPLED)))
        ]

    def reader(self, student: Any, requested: set[str], settings: "TrainSettings") -> "TokenReader":
        """Return what reads of a student the states that match this teacher's.

        Raises:
            ConfigError: the student reads other tokens, has several bodies, or layers or lengths
                do not fit.

        """
        from sentence_transformers.base.modules import Transformer
        from torch import nn

        from retrodistill.models.students.layers import layer_stack
        from retrodistill.models.students.token_states import (
            ATTENTION,
            STATES,
            TOKEN_VECTORS,
            TokenReader,
            attention_maps,
            matched_layers,
        )

        bodies = [module.model for module in student.modules() if isinstance(module, Transformer)]
        if len(bodies) != 1:
            raise ConfigError(
                f"--states compares one body with another, but the student has {len(bodies)}: omit "
                "--doc-student and --freeze."
            )
        self._check_tokens(student)
        longest = min(
            student.max_seq_length or 512, max(settings.query_tokens, settings.doc_tokens)
        )
        if self._longest is not None and longest > self._longest:
            raise ConfigError(
                f"--states {self.model} reads {self._longest} tokens at most, but the student "
                f"reads {longest}: lower --doc-tokens."
            )
        vectors = bool(requested & TOKEN_VECTORS)
        if vectors:
            self._log_prompts(student)
        if not requested & (STATES | ATTENTION):
            return TokenReader(bodies[0], (), None, vectors=vectors)
        student_layers, teacher_layers = layer_stack(bodies[0]), layer_stack(self.body)
        pairs = matched_layers(len(student_layers), len(teacher_layers), settings.states_layers)
        last = pairs[-1]
        layers, self._layers = ((), ()) if not requested & STATES else zip(*pairs, strict=True)
        attention = None
        if requested & ATTENTION:
            attention, self._attention = last
            if not all(last):
                raise ConfigError("attention-relations needs a layer, not the embeddings alone.")
            for stack, layer in ((student_layers, attention), (teacher_layers, self._attention)):
                attention_maps(stack[layer - 1])
        width, teacher_width = bodies[0].config.hidden_size, self.body.config.hidden_size
        projection = None
        if layers and width != teacher_width:
            projection = nn.Linear(width, teacher_width)
        matches = ", ".join(f"{student} to {teacher}" for student, teacher in pairs)
        log.info(f"layers of the student and of --states {self.model}: {matches}.")
        return TokenReader(bodies[0], layers, attention, projection, vectors=vectors)

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return the teacher's signals of the batch's tokens.

        `teacher_states` (J, X, W, U), `teacher_attention_vectors` (R, X, W, Z) and
        `teacher_token_vectors` (X, W, S), as far as they are asked for.
        """
        if self._batch is not batch:  # a student of several dimensions asks once for each
            assert student is not None
            self._batch, self._signals = batch, self._read(student)
        return self._signals

    def _read(self, student: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the signals of the tokens that the student read."""
        import torch

        from retrodistill.models.inference import token_batches
        from retrodistill.models.students.token_states import captured

        ids, mask = student["token_ids"], student["token_mask"]
        columns = {"input_ids": ids, "attention_mask": mask.long()}
        if "token_type_ids" in inspect.signature(self.body.forward).parameters:
            columns["token_type_ids"] = student["token_types"]
        # Tokens that expand a query are scored, even where no other token attends to them.
        read = mask | student["scored_tokens"] if self._whole is not None else mask
        lengths = read.sum(-1).cpu().numpy()
        signals: dict[str, Tensor] = {}
        for rows in token_batches(lengths, self._batch_tokens):
            width = max(1, int(lengths[rows].max()))
            positions = torch.from_numpy(rows).to(ids.device)
            inputs = {name: column[positions, :width] for name, column in columns.items()}
            with (
                torch.no_grad(),
                captured(self.body, self._layers, self._attention) as capture,
            ):
                vectors = self._vectors(inputs)
            parts = {
                "teacher_states": capture.states() if self._layers else None,
                "teacher_attention_vectors": capture.attention() if self._attention else None,
                "teacher_token_vectors": None if vectors is None else vectors[None],
            }
            for name, tensor in parts.items():
                if tensor is None:
                    continue
                if name not in signals:
                    signals[name] = tensor.new_zeros(len(tensor), *ids.shape, tensor.shape[-1])
                signals[name][:, positions, :width] = tensor
        if self._whole is not None:
            (signals["teacher_token_vectors"],) = signals["teacher_token_vectors"]
        return signals

    def _vectors(self, inputs: "dict[str, Tensor]") -> "Tensor | None":
        """Run the teacher; return its token vectors (texts, tokens, S), if they are asked for."""
        from retrodistill.models.inference import body_autocast, run_model
        from retrodistill.models.students.towers import side_modules

        if self._whole is None:
            with body_autocast(self._dtype, inputs["input_ids"].device):
                self.body(**inputs)
            return None
        modules = side_modules(self._whole, "document")
        outputs = run_model(modules, inputs, self._dtype, task="document")
        vectors: Tensor = outputs["token_embeddings"].float()
        return vectors

    def _log_prompts(self, student: Any) -> None:
        """Warn where the teacher was made for other prompts than it will read."""
        from retrodistill.models.students.towers import side_prompts

        own, read = side_prompts(self._whole), side_prompts(student)
        if own != read:
            log.warning(
                f"--states {self.model} reads the student's prompts {read}, but was made for "
                f"{own}: start from a student with the same, such as this model with "
                "--keep-layers."
            )

    def _check_tokens(self, student: Any) -> None:
        tokenizer = student.tokenizer
        same = tokenizer.get_vocab() == self.tokenizer.get_vocab()
        if not same or _split(tokenizer, self._texts) != _split(self.tokenizer, self._texts):
            raise ConfigError(
                f"--states {self.model} reads other tokens than the student, so that no state of "
                "the one is of the other's token. Take a teacher with the student's tokenizer"
                + ("." if same else ", and no --prune-vocabulary.")
            )
        if tokenizer.padding_side != "right":
            raise ConfigError("--states is for students that pad at the right: encoders.")


def load_whole(model: str, device: "torch.device") -> Any:
    """Return a late-interaction model in evaluation mode, float32, that gets no gradient.

    Raises:
        ConfigError: there is no such model, it is of another kind, or has a body for each side.

    """
    from sentence_transformers.base.modules import Transformer

    from retrodistill.models.students.late_interaction import load_late_interaction

    whole = load_late_interaction(model, device).eval().requires_grad_(False)
    bodies = [module for module in whole.modules() if isinstance(module, Transformer)]
    if len(bodies) != 1 or whole[0] is not bodies[0]:
        raise ConfigError(
            f"--states {model}: token-graph compares the tokens of one transformer, but this model "
            f"has {len(bodies)}, behind a Router. Take a teacher that reads both sides alike."
        )
    return whole


def load_body(model: str) -> tuple[Any, Any]:
    """Return the body of a model without its head, with float32 weights, and its tokenizer.

    Raises:
        ConfigError: there is no such model, or it lacks weights.

    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from retrodistill.models.inference import loading, model_path, saved_settings

    name = model_path(model)
    modules = saved_settings(name, "modules.json") or [{"path": ""}]
    options = {"subfolder": modules[0]["path"], "trust_remote_code": False}
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        body, report = AutoModel.from_pretrained(
            name, **options, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    lacking = sorted(key for key in report["missing_keys"] if "pooler." not in key)
    if lacking:
        raise ConfigError(
            f"{model!r} lacks weights of its body: {', '.join(lacking[:3])}, which would be random "
            "numbers. Use another model."
        )
    return body, tokenizer


def _split(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    from retrodistill.models.inference import reserved

    with reserved(tokenizer):
        ids: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    return ids
