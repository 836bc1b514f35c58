"""Zarr stores: the only thing that stages share."""
