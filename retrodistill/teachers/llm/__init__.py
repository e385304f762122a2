"""Language models behind an OpenAI-compatible endpoint, as teachers."""

from retrodistill.teachers.llm.listwise import LLMListwiseTeacher
from retrodistill.teachers.llm.pairwise import LLMPairwiseTeacher
from retrodistill.teachers.llm.pointwise import LLMTeacher

__all__ = ["LLMListwiseTeacher", "LLMPairwiseTeacher", "LLMTeacher"]
