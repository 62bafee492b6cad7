"""Kernels: NumPy arrays in, NumPy arrays out; no Tensor, no graph, no MPI.

The only room where speed may cost simplicity. Every kernel takes float32 or float64 arrays of any memory layout and
any batch size, zero included; it never writes to its inputs and returns C-contiguous arrays of the inputs' dtype, or
images in HWNC order (``layout``).
Infinities and NaNs go through as IEEE 754 has it, and NumPy's error state decides whether they warn. Shapes and dtypes
are checked one room up, in ``distgrad.ops``. Beside the kernels stand ``*_reference`` functions, written for
obviousness, that the tests hold them to; nothing else calls those.

``window``
    Where the windows of a convolution or pooling lie.
``precision``
    Half precision, computed in single.
``select``
    ``np.where`` without a branch for each element.
``erf``
    The error function, its complement, and GELU.

``convolution``
    2-d convolution and its two adjoints, by a plan or, where they are small, by ``im2col``.
``convolution_plan``, ``convolution_choice``
    What a plan is, and which one a shape gets.
``direct_convolution``, ``stem_convolution``, ``depthwise_convolution``
    The plans that compute each product of the definition: for any shape, few input channels, one channel a group.
``gather``
    The pixels under blocks of windows, in HWNC order.
``small_products``
    Products of a tall matrix in pieces that BLAS reads where they lie.
``im2col``
    Columns of NCHW images, for small convolutions.
``convolution_nd``
    Convolution over one to three dimensions, by way of the 2-d kernels.
``pooling``
    Max, average and adaptive pooling over two dimensions, and their adjoints.
``resample``
    Sparse linear maps along dimensions: interpolation, and padding with an image's own pixels.
``folding``
    Whole batches of windows as columns, and back.
``batch_norm``
    Batch normalization over every dimension but the second: training, evaluation, backward.
``group_norm``
    Normalization of groups of neighbouring elements: layer, group, instance and RMS norm, and their backward passes.
``attention``
    A softmax over scores of which some are hidden.
``summation``
    Sums over any dimensions, exact in float32 whichever they are.
``product``
    Products of matrices, and of rows, on top of NumPy's.
``triangular``
    Triangular systems of equations.
``lu``
    LU factorization with partial pivoting.
``scatter``
    Adding into places of an array that may be named several times.
"""
