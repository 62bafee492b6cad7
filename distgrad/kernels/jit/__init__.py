"""Kernels that are compiled for this processor, where the extra ``fast`` (llvmlite) is installed.

NumPy passes over memory once for each operation, and multiplies matrices only where they lie as matrices. What is here
does several operations while a number is in a register, and multiplies pixels where they lie. Each kernel has NumPy's
beside it, from which it is called where ``takes`` says so, and which is its reference in the tests; without llvmlite,
or with ``distgrad.backends.jit = "off"``, nothing here runs.

``code``, ``linear``
    Writing a function in LLVM's assembly; small constant matrices in few instructions.
``machine``, ``object_store``
    Compiling it for this processor, and keeping it for the next process.
``tile_transform``, ``winograd_passes``, ``weight_transform``
    Winograd's transforms, each in one pass.
``window_products``, ``outer_products``
    Products of pixels with weights and with gradients, without columns.
``depthwise``, ``max_pooling``, ``channels``, ``descent``
    Depthwise convolution, max pooling, normalization and activations, a step of SGD.
"""
