"""What is asked over HTTP, a module for each part of the interface, and how it is documented.

How answers are found is in `pipeline` and `served`.
"""
