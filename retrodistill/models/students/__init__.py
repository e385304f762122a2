"""Models that are trained and served: bi-encoders, and how to make smaller ones."""
