"""Rounds: mine with the present student, score what is new, train, measure, keep or stop."""
