"""Makers of students: what a larger model becomes before it is trained."""

from retrodistill.students.forms import pooled, prompted, two_towers, with_projection
from retrodistill.students.layers import keep_layers, parse_layers
from retrodistill.students.soups import soup
from retrodistill.students.vocabulary import prune_vocabulary
from retrodistill.students.width import narrow

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
