"""Result cards: written beside an evaluation, read by others, and reproduced."""
