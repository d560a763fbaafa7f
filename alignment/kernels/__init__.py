"""The loops over pixels and tiles that OpenCV and numpy cannot fuse, compiled by numba: one pass, no temporaries.

Tiles are sampled into a buffer that stays in the processor's first cache, compared, and forgotten. Results do not
depend on threads or chunks, for there are none: a process works on one core.

The machine code is kept beside these files (or where numba keeps it if that folder cannot be written): it is made once
per installation and processor, in some twenty seconds. ``python -m alignment.kernels`` makes it beforehand.

Planes are float32 and contiguous, pixel centres at integers, x right, y down.
"""
