"""Result cards: what it takes to get numbers again, written, read and acted upon."""
