"""The kernels. Importing them imports triton."""
