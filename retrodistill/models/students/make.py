"""Makers of students: what a larger model becomes before it is trained."""

from retrodistill.models.students.forms import pooled, prompted, two_towers, with_projection
from retrodistill.models.students.layers import keep_layers, parse_layers
from retrodistill.models.students.soups import soup
from retrodistill.models.students.vocabulary import prune_vocabulary
from retrodistill.models.students.width import narrow

__all__ = [
    "keep_layers",
    "narrow",
    "parse_layers",
    "pooled",
    "prompted",
    "prune_vocabulary",
    "soup",
    "two_towers",
    "with_projection",
]
