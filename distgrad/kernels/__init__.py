"""Kernels: NumPy arrays in, NumPy arrays out; no Tensor, no graph, no MPI.

The only room where speed may cost simplicity. Every kernel takes float32 or float64 arrays of any memory layout and
any batch size, zero included; it never writes to its inputs and returns C-contiguous arrays of the inputs' dtype.
Infinities and NaNs go through as IEEE 754 has it, and NumPy's error state decides whether they warn. Shapes and dtypes
are checked one room up, in ``distgrad.ops``. Beside the kernels stand ``*_reference`` functions, written for
obviousness, that the tests hold them to; nothing else calls those.

``window``
    Where the windows of a convolution or pooling lie.

``convolution``
    2-d convolution and its two adjoints.
``pooling``
    Max, average and adaptive average pooling over two dimensions, and their adjoints.
``batch_norm``
    Batch normalization over every dimension but the second: training, evaluation, backward.
"""
