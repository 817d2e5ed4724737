"""Well-known courses' own function names and signatures, over the fast kernels."""
