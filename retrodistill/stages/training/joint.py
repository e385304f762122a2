"""The folder of a teacher that was trained together with its student."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import as_dict
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.stages.training.building import save_student
from retrodistill.stages.training.card import write_card
from retrodistill.stages.training.lineage import student_lineage, unseen_values

if TYPE_CHECKING:
    from retrodistill.stages.training.loop import Fitted
    from retrodistill.stages.training.plan import TrainingPlan


def teacher_folder(out: Path) -> Path:
    """Return the folder of the joint teacher of a student."""
    return out.with_name(f"{out.name}.teacher")


def save_joint(plan: "TrainingPlan", fitted: "Fitted", out: Path) -> None:
    """Write the trained joint teacher of the student at `out`, with manifest, lineage and card.

    It comes before its student, and replaces one that was left by a training killed in between.
    """
    joint, place = plan.joint, teacher_folder(out)
    assert joint is not None
    settings = joint.settings(plan.settings)
    lineage = student_lineage(
        plan.material, plan.sources, name=place.name, start=plan.student, settings=plan.settings
    )
    details: dict[str, Any] = {
        "joint_teacher_of": out.name,
        "queries": len(plan.material.queries),
        "steps": fitted.steps,
        "planned_steps": plan.steps,
        "losses": fitted.losses,
        "gradient_shares": dict(fitted.joint_shares),
        "seconds": round(fitted.seconds, 1),
        "dtype": str(joint.module.task.dtype).removeprefix("torch."),
    }
    if plan.joint_development is not None and fitted.best is not None:
        details["development"] = joint_development(plan, fitted) | {
            "unseen": unseen_values(
                plan.joint_development,
                joint.module.model,
                plan.material.collection.teacher_view,
                lineage,
            )
        }
    with new_folder(place, overwrite=True) as folder:
        save_student(joint.module.task, settings, folder)
        manifest = plan.write_manifest(folder, details | lineage.write(folder))
        config = {"student": joint.start, "split": plan.split} | as_dict(settings)
        write_card(folder, replace(manifest, config=config), name=place.name)
    log.info(f"the joint teacher: {place}")


def joint_development(plan: "TrainingPlan", fitted: "Fitted") -> dict[str, Any]:
    """Return what a manifest records of a joint teacher's measurements, at the student's best."""
    assert plan.joint is not None
    assert fitted.best is not None
    step = fitted.best[0]
    return {
        "split": plan.settings.dev_split,
        "metric": plan.settings.dev_metric,
        "step": step,
        "value": dict(fitted.joint_measured)[step],
        "docs": plan.joint.settings(plan.settings).dev_docs,
        "values": fitted.joint_measured,
    }
