"""The Numba kernels, installed and imported as `fastconv._kernels` (the folder is named `src_kernels`).

Nothing here checks arguments or decides what to run: kernels receive plain contiguous arrays and integers and
write into arrays they are given. `jit.py` owns compilation and caching, `isa.py` the facts about the host's vectors.
"""
