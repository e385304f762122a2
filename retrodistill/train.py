"""Train a student from teacher scores, from labels, or from both.

    python -m retrodistill.train --data beir:scifact --scores scores/ce --student MODEL \\
        --objective "listwise-kl(student_temperature=0.05) + 0.1*contrastive" --out students/kl

    python -m retrodistill.train --list
    python -m retrodistill.train --recipe simlm-kd --data ... --scores ... --student ... --out ...
    python -m retrodistill.train --recipe pair --stage query-centric --data ... --student ... ...

The result is a plain sentence-transformers folder. With --save-steps, --resume continues a killed
training under the same settings. Recipes are published methods as settings, which flags override.

    python -m retrodistill.train --data beir:scifact --recipe leaf --vectors TEACHER \\
        --student MODEL --out students/leaf

    python -m retrodistill.train --data beir:scifact --recipe tct-colbert --scores runs/bm25 \\
        --teacher late-interaction:COLBERT --student MODEL --out students/tct

A live teacher scores the documents of each batch for all its queries while the student trains.

An objective that compares vectors alone needs neither labels nor scores: without --scores it
learns from every document and query of the collection.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from retrodistill.base.command import run
from retrodistill.base.config import TrainConfig
from retrodistill.base.errors import ConfigError


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(
        TrainConfig,
        train,
        verb="train",
        about=__doc__,
        words=words,
        shows={"--list": ("List the recipes and stop.", print_recipes)},
        beneath=recipe_settings,
    )


def recipe_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the recipe and stage that these settings name, if they name one."""
    from retrodistill.objectives.recipes import load_recipe

    recipe, stage = settings.get("recipe"), settings.get("stage")
    if recipe is None:
        if stage is not None:
            raise ConfigError(f"--stage needs --recipe: {stage!r} is a stage of which one?")
        return {}
    return load_recipe(str(recipe)).stage(None if stage is None else str(stage)).settings


def train(config: TrainConfig) -> None:
    """Train, and print the student's folder."""
    from retrodistill.stages import preflight

    preflight.train(config)
    from retrodistill.stages.pipelines import verbs

    verbs.train(config)
    print(config.out)


def print_recipes() -> None:
    """Print every recipe: what it needs, its source, and how it differs from what was published."""
    from textwrap import fill

    from retrodistill.base.config import TrainSettings
    from retrodistill.objectives.objective import needs_of
    from retrodistill.objectives.recipes import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        lines = []
        for stage in recipe.stages:
            inputs = needs_of(TrainSettings(**stage.settings))
            needs = ", ".join([*inputs, *recipe.needs]) or "nothing"
            about = f"--stage {stage.name}: {stage.about}; " if recipe.staged else ""
            lines.append(f"{about}needs: {needs}")
        lines += [f"source: {recipe.source}", *([f"notes: {recipe.notes}"] if recipe.notes else [])]
        print(f"{name}: {recipe.about}")
        for line in lines:
            print(
                fill(
                    " ".join(line.split()),
                    98,
                    initial_indent="    ",
                    subsequent_indent="      ",
                    break_on_hyphens=False,
                )
            )


if __name__ == "__main__":
    sys.exit(main())
