"""Teachers: strong rankers behind `retrodistill.types.Teacher`."""
