"""Vectors under string ids, searched by inner product. An index never knows a model."""
