"""Where the parts of all rounds lie, and what their students are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrodistill.base.config import MineConfig, RoundsConfig, ScoreConfig, TrainSettings
from retrodistill.stages.pipelines.rounds.trainings import Training

START = "start"
"""Name of the student before any round."""

K = 100
"""Documents that are found for a query that is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A training in its round: what it starts from, and where its parts lie."""

    round: int
    training: Training
    start: str
    """Model that it starts from."""

    name: str
    """Name of its student in tables and of its steps."""

    folder: Path
    lists: Path
    """Run of the pairs that it learns from."""

    earlier: Path | None
    """Lists of the mining before."""

    known: tuple[Path, ...]
    """Lists whose pairs its teacher has scored before."""

    shaped: bool
    """Whether the model that it starts from has its shape already."""

    @property
    def key(self) -> str:
        """Return the beginning of its steps' names."""
        return "-".join(filter(None, ("round", str(self.round), self.training.stage)))

    @property
    def student(self) -> Path:
        """Return the folder of its student."""
        return self.folder / "student"

    @property
    def candidates(self) -> Path:
        """Return the run that its start model retrieved."""
        return self.folder / "candidates"

    @property
    def settings(self) -> TrainSettings:
        """Return the settings of its training."""
        return self.training.unshaped() if self.shaped else self.training.settings


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The settings, what is known of the collection, and where things lie."""

    config: RoundsConfig
    trainings: Sequence[Training]
    labelled: bool
    """Whether --split has labels."""

    start_retriever: str
    """Name in RETRIEVERS of what retrieves with --student."""

    retriever: str
    """Name in RETRIEVERS of what retrieves with a trained student."""

    @property
    def out(self) -> Path:
        """Return the folder of all that is made."""
        return self.config.out

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The trainings of all rounds, in order."""
        turns: list[Turn] = []
        for number in range(1, self.config.rounds + 1):
            turns += self._round(number, turns)
        return tuple(turns)

    def of_round(self, number: int) -> list[Turn]:
        """Return the trainings of a round, in order."""
        return [turn for turn in self.turns if turn.round == number]

    def _round(self, number: int, before: Sequence[Turn]) -> list[Turn]:
        """Return the trainings of a round, given those of the rounds before."""
        turns: list[Turn] = []
        earlier = lists = before[-1].lists if before else None
        last = before[-1].student if before and self.config.start == "last" else None
        for training in self.trainings:
            folder = self.out / "rounds" / str(number) / training.stage
            if training.mines:
                earlier, lists = lists, folder / "lists"
            alike = [
                turn for turn in (*before, *turns) if turn.training.teacher == training.teacher
            ]
            assert lists is not None  # the first training of a round mines
            turns.append(
                Turn(
                    round=number,
                    training=training,
                    start=str(last or self.config.student),
                    name=f"round {number}" + (f", {training.stage}" if training.stage else ""),
                    folder=folder,
                    lists=lists,
                    earlier=earlier,
                    known=tuple(dict.fromkeys(turn.lists for turn in alike)),
                    shaped=last is not None,
                )
            )
            last = turns[-1].student
        return turns

    def present(self, turn: Turn) -> str:
        """Return the retriever of the student that is the newest before a training."""
        newest = self._newest(turn)
        if newest is None:
            return f"{self.start_retriever}:{self.config.student}"
        return f"{self.retriever}:{newest}"

    def _newest(self, turn: Turn) -> Path | None:
        """Return the student trained last before a training, wherever that one starts."""
        index = self.turns.index(turn)
        return self.turns[index - 1].student if index else None

    def mining(self, retriever: Sequence[str], out: Path, **settings: Any) -> MineConfig:
        """Return the settings of a run: of candidates, or of a split that is measured."""
        return MineConfig(
            data=self.config.data,
            retriever=tuple(retriever),
            max_tokens=self.config.max_tokens,
            precision=self.config.precision,
            out=out,
            **settings,
        )

    def scoring(self, turn: Turn, *, preferences: bool) -> ScoreConfig:
        """Return the settings that score a training's pairs; `out` holds a store a teacher."""
        spec = self.config.comparer if preferences else turn.training.teacher
        return ScoreConfig(
            data=self.config.data,
            queries=self.config.queries,
            candidates=turn.lists,
            teacher=spec,
            option=() if preferences else turn.training.options,
            preferences=preferences,
            opponents=self.config.opponents,
            max_tokens=self.config.teacher_tokens,
            precision=self.config.precision,
            out=self.out / ("preferences" if preferences else "scores"),
        )
