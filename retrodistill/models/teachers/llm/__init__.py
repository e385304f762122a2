"""Language models behind an OpenAI-compatible endpoint, as teachers."""

from retrodistill.models.teachers.llm.grading import LLMGrader, Rubric
from retrodistill.models.teachers.llm.listwise import LLMListwiseTeacher
from retrodistill.models.teachers.llm.pairwise import LLMPairwiseTeacher
from retrodistill.models.teachers.llm.pointwise import LLMTeacher

__all__ = ["LLMGrader", "LLMListwiseTeacher", "LLMPairwiseTeacher", "LLMTeacher", "Rubric"]
