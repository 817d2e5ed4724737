"""Courses' own names and signatures over the fast kernels: each course a package or module."""
