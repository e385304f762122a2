"""Judging: graded relevance by a language model or another teacher, where no human has judged.

What was retrieved is pooled, graded pair by pair, and compared with human grades if there are any.
"""
