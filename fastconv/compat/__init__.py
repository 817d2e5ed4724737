"""Courses' own names and signatures over the fast kernels: one package per course."""
