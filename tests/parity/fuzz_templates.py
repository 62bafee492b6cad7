"""The statements that the random programs of ``fuzz.py`` are made of, by kind.

A template is an expression; one that begins with ``!`` is a statement; one that ends in ``?NAME`` is only for tensors
of which ``Writer.is_NAME`` holds. ``{x}`` in it is the tensor that it is about, drawn rather among the last, ``{y}``
another one that broadcasts with it or a number, and so on: each name in braces is a method ``fill_NAME`` of ``Writer``,
and stands for the same text throughout a template.

Where a template is more roundabout than it need be (``apart``, ``.contiguous()``, ``?full``), it goes around something
that PyTorch leaves open or gets wrong: which of equal elements is taken, what is done with no elements, strides.
"""

from __future__ import annotations

UNARY = (
    "exp log sqrt sin cos tanh sigmoid relu abs neg square reciprocal rsqrt log1p expm1 exp2 log2 log10 erf erfc atan "
    "sinh cosh tan asin acos floor ceil round trunc frac sign isnan isinf isfinite isposinf isneginf logical_not "
    "positive deg2rad rad2deg nan_to_num sgn asinh atanh erfinv sinc absolute fix arcsin "
    "arctan negative isreal"
).split()
ACTIVATIONS = (
    "softplus logsigmoid gelu silu mish elu selu leaky_relu hardtanh hardswish relu6 celu "
    "tanhshrink hardshrink softshrink sigmoid tanh relu"
).split()
BINARY = (
    "add sub mul div pow maximum minimum fmod remainder hypot logaddexp fmax fmin true_divide logaddexp2 "
    "copysign xlogy floor_divide float_power rsub ldexp max min heaviside subtract multiply divide"
).split()
COMPARE = "eq ne lt le gt ge logical_and logical_or logical_xor isclose greater less_equal not_equal".split()
INTEGER_BINARY = "bitwise_and bitwise_or bitwise_xor gcd lcm bitwise_left_shift bitwise_right_shift".split()
OPERATORS = "+ - * / ** < <= == != > >= // %".split()
REDUCTIONS = "sum mean amax amin logsumexp var std norm all any nansum nanmean count_nonzero".split()
REDUCTIONS_OF_ONE_DIM = "prod argmax argmin".split()
IN_PLACE = (
    "exp sin cos tanh sigmoid relu abs neg sqrt log zero floor square reciprocal erf round trunc tan atan asin log1p "
    "expm1 frac sgn sign rsqrt sinh ceil nan_to_num erfc exp2 log2 deg2rad asinh absolute negative tril "
    "triu squeeze t sinc"
).split()
IN_PLACE_BINARY = (
    "add sub mul div copy pow fmod remainder floor_divide true_divide subtract multiply divide copysign hypot "
    "xlogy float_power ldexp heaviside"
).split()

# Of each kind: how often it is drawn, and its templates, one a line. More are made from the lists above.
KINDS: dict[str, tuple[int, str]] = {
    "unary": (10, "\n".join(f"{{x}}.{op}()" for op in UNARY)),
    "activation": (
        5,
        "\n".join(f"F.{op}({{x}})" for op in ACTIVATIONS)
        + """
        F.elu({x}, alpha=0.7)
        F.hardsigmoid({x}.float())
        F.softsign({x}) ?signed
        F.celu({x}, alpha=1.5)
        F.leaky_relu({x}, 0.2)
        F.hardtanh({x}, -0.5, 0.7)
        F.softplus({x}, beta=2, threshold=1)
        F.hardshrink({x}, 0.3)
        F.softshrink({x}, 0.3)
        F.threshold({x}, 0.1, 0.5)
        F.gelu({x}, approximate='tanh')
        F.glu({x}, {d})
        F.prelu({x}, t.tensor([0.3], dtype={x}.dtype))
        F.prelu({x}, {any})
        F.rrelu({x})
        F.relu({x}, inplace=False)
        F.softmin({x}, {d})
        {x}.softmax({d})
        {x}.log_softmax({d})
        F.softmax({x}, {d}, dtype=t.float64)
        F.normalize({x}, p={p}, dim={d}) ?full
        t.softmax({x}, -1)
        """,
    ),
    "binary": (
        14,
        "\n".join([f"{{x}} {op} {{y}}" for op in OPERATORS] * 2 + [f"{{n}} {op} {{x}}" for op in OPERATORS])
        + "\n"
        + "\n".join([f"t.{op}({{x}}, {{y}})" for op in BINARY + COMPARE + INTEGER_BINARY])
        + """
        t.atan2({x}, {y}) ?signed
        t.arctan2({x}, {y}) ?signed
        """
        + """
        {x}.add({y}, alpha=2)
        {x}.sub({y}, alpha=0.5)
        t.rsub({x}, {y}, alpha=2)
        t.div({x}, {y}, rounding_mode='floor')
        t.div({x}, {y}, rounding_mode='trunc')
        {x} & {z}
        {x} | {z}
        ~{x}
        -{x}
        abs({x})
        """,
    ),
    "pointwise": (
        7,
        """
        {x}.clamp(-0.5, 0.5)
        {x}.clamp(min={n})
        {x}.clamp(max={n})
        {x}.clamp(min={z})
        {x}.clamp({z}, {z} + 1)
        {x}.clamp_min({n})
        {x}.clamp_max({z})
        {x}.lerp({z}, 0.3)
        {x}.lerp({z}, 0.8)
        {x}.lerp({z}, {w})
        t.addcmul({x}, {y}, {z}, value=0.5)
        t.addcdiv({x}, {z}, {w}, value=0.5)
        {x}.nan_to_num(nan=1.0, posinf=2.0, neginf=-3.0)
        {x}.logit(0.1)
        {x}.nan_to_num().signbit()
        ({x}.abs() + 1.1).acosh()
        {x}.round(decimals=1)
        t.polygamma(1, {x}.abs() + 0.4)
        t.polygamma(2, {x}.nan_to_num(0.3, 2.0, -1.5).abs() + 0.4)
        ({x}.abs() + 0.4).digamma()  # at the poles PyTorch's rounding gives numbers
        ({x}.abs() + 0.4).lgamma()
        t.where({mask}, {x}, {y})
        t.where({mask}, {n}, {x})
        {x}.where({mask}, {y})
        t.isin({x}, {any}.contiguous())
        {x}.{kind}()
        {x}.to(t.{dtype})
        {x}.to({any})
        {x}.type_as({any})
        {x}.masked_fill({mask}, {n})
        {x}.masked_fill({mask}, {scalar})
        t.full_like({x}, 2)
        t.zeros_like({x})
        t.ones_like({x}, requires_grad=True) * {x}
        {x}.new_zeros({shape})
        {x}.clone()
        {x}.contiguous()
        """,
    ),
    "reduction": (
        8,
        "\n".join(f"{{x}}.{op}()" for op in REDUCTIONS + REDUCTIONS_OF_ONE_DIM if op != "logsumexp")
        + "\n"
        + "\n".join(
            f"{{x}}.{op}(dim={{D}})\n{{x}}.{op}(dim={{D}}, keepdim=True)" for op in REDUCTIONS if op != "count_nonzero"
        )
        + "\n"
        + "\n".join(f"{{x}}.{op}(dim={{d}}, keepdim={{K}})" for op in REDUCTIONS_OF_ONE_DIM)
        + """
        {x}.sum({D}, dtype=t.float64)
        {x}.var({D}, correction=0)
        {x}.std({D}, correction=2, keepdim={K})
        t.std_mean({x}, dim={D})[0]
        t.var_mean({x}, dim={D}, keepdim={K})[1]
        {x}.norm({p}, {d})
        {x}.norm(p={p})
        t.linalg.vector_norm({x}, {p}, {D})
        t.dist({x}, {z}, {p})
        {x}.renorm({p}, {d}, 0.7) ?full
        t.aminmax({x}, dim={d})[0]
        t.aminmax({x})[1]
        {x}.max()
        {x}.min()
        {x}.max({d})[0]
        {x}.min({d}, keepdim={K})[0]
        {x}.max({d})[1]
        {x}.count_nonzero({d})
        {x}.trace()
        t.nanmedian(apart({x}))
        apart({x}).median()
        apart({x}).median({d})[0]
        apart({x}).nanmedian({d}, keepdim={K})[0]
        {x}.nan_to_num().mode({d})[0]
        apart({x}).kthvalue({k}, {d})[0]
        apart({x}).topk({k}, {d})[0]
        apart({x}).topk({k}, {d}, largest=False)[1]
        apart({x}).sort({d})[0]
        apart({x}).sort({d}, descending=True)[1]
        {x}.sort(dim={d}, stable=True)[0]
        {x}.argsort(dim={d}, stable=True)
        t.msort(apart({x}))
        apart({x}).quantile(0.3, {d})
        apart({x}).quantile(t.tensor([0.1, 0.9]).double(), {d}, keepdim={K})
        t.nanquantile(apart({x}), 0.5)
        apart({x}).quantile(0.4, interpolation='higher')
        {x}.unique()
        t.unique({x}, return_counts=True)[1]
        t.unique({x}, return_inverse=True)[1]
        t.unique_consecutive({x})
        {x}.long().abs().flatten().bincount()
        {x}.double().histc(4, -2.03, 2)
        t.searchsorted(t.tensor([-1.0, 0.01, 0.5]), {x})
        t.bucketize({x}, t.tensor([-1.0, 0.01, 0.5]), right={K})
        {x}.nonzero()
        t.argwhere({x})
        """,
    ),
    "scan": (
        3,
        """
        {x}.cumsum({d})
        {x}.cumprod({d})
        finite({x}.logcumsumexp({d}))
        {x}.cummax({d})[0] ?full
        {x}.cummin({d})[1] ?full
        {x}.diff(dim={d})
        {x}.diff(n=2, dim={d})
        {x}.diff(dim={d}, prepend={x}.narrow({d}, 0, 1))
        t.trapezoid({x}.double().nan_to_num().clamp(-9, 9), dim={d}) ?full
        t.trapezoid({x}.double().nan_to_num().clamp(-9, 9), dx=0.5, dim={d}) ?full
        t.cumulative_trapezoid({x}, dim={d})
        {x}.cumsum({d}, dtype=t.float32)
        """,
    ),
    "view": (
        16,
        """
        {x}.t()
        {x}.T
        {x}.mT
        {x}.permute({order})
        {x}.unsqueeze({d})
        {x}.squeeze({d})
        {x}.squeeze()
        {x}.flatten()
        {x}.flatten({d}, -1)
        {x}.ravel()
        {x}.detach()
        {x}.detach()[...]
        {x}.data * 1
        {x}.expand({wider})
        {x}.expand({wider})
        {x}.broadcast_to((2, *{shape}))
        {x}.expand_as({any})
        {x}.narrow({d}, {start}, {length})
        {x}.select({d}, 0)
        {x}.select({d}, -1)
        {x}.chunk({k}, {d})[0]
        {x}.split({k}, {d})[-1]
        {x}.tensor_split({k}, {d})[0]
        {x}.unbind({d})[0]
        {x}.unfold({d}, 2, 2)
        {x}.unfold({d}, 2, 1) * 1
        {x}.view({sizes})
        {x}.reshape({sizes})
        {x}.view({sizes})
        {x}.reshape({sizes})
        {x}.unflatten({d}, (1, -1))
        {x}.view_as({x})
        {x}.diagonal({offset})
        {x}.diagonal({offset}, {d}, {e})
        {x}.movedim({d}, {e})
        {x}.swapaxes({d}, {e})
        {x}.transpose({d}, {e})
        {x}[...]
        {x}[{i}]
        {x}[{i}]
        t.atleast_2d({x})
        t.broadcast_tensors({x}, {z})[0]
        {x}.contiguous().clone().as_strided((2, 2), (1, 1)) * 1 ?full
        {x}.contiguous().clone().as_strided((2, 2), (2, 1)) ?full
        {x}.contiguous().clone().as_strided((2,), (2,), 1) ?full
        next(iter({x}))
        """,
    ),
    "rearranged": (
        7,
        """
        {x}.flip({D})
        {x}.fliplr()
        {x}.flipud()
        t.rot90({x}, {k}, ({d}, {e}))
        {x}.roll({k}, {d})
        {x}.roll(-1)
        {x}.roll((1, -1), ({d}, {e}))
        {x}.repeat({repeats})
        {x}.tile((2,))
        {x}.tile((1, 2))
        {x}.repeat_interleave(2, {d})
        {x}.repeat_interleave(2)
        {x}.repeat_interleave(t.tensor([1, 2, 0]), {d})
        {x}.tril({offset})
        {x}.triu({offset})
        {x}.diag_embed()
        {x}.diag_embed({offset}, 0, -1)
        {x}.diag({offset})
        {x}.diagflat({offset})
        t.block_diag({x}, {any})
        t.cat([{x}, {x}], {d})
        t.cat([{x}, {any}], 0)
        t.cat([{x}, {x}[:0], {any}])
        t.stack([{x}, {x}], {d})
        t.stack([{x}, {same}], {d})
        t.hstack([{x}, {same}])
        t.vstack([{x}, {same}])
        t.dstack([{x}, {x}])
        t.column_stack([{x}, {x}])
        t.kron({x}.contiguous() * 1, {any}.contiguous() * 1)
        t.meshgrid({x}, {any}, indexing='ij')[0]
        t.cartesian_prod({x}.flatten(), {any}.flatten())
        t.combinations({x}.flatten())
        t.cross(spread({x}, 2, 3), spread({z}, 2, 3).flip(-1), dim=-1)
        t.vander({x}, 3)
        F.pixel_shuffle(spread({x}, 1, 4, 2, 3), 2)
        F.pixel_unshuffle(spread({x}, 1, 2, 4), 2)
        t.channel_shuffle(spread({x}, 1, 4, 2, 2), 2)
        F.pad({x}, (1, 2))
        F.pad({x}, (1, -1), value=0.5)
        F.pad(spread({x}, 2, 3, 4), (1, 2), mode='reflect')
        F.pad(spread({x}, 1, 2, 3, 4), (1, 2, 0, 1), mode='replicate')
        F.pad(spread({x}, 1, 2, 3, 4), (1, 2, 1, 1), mode='circular')
        """,
    ),
    "picking": (
        9,
        """
        {x}.index_select({d}, {at})
        {x}.gather({d}, {wide})
        t.gather({x}, {d}, {wide})
        t.take_along_dim({x}, {wide}, {d})
        {x}.take({places})
        {x}.masked_select({mask})
        {x}[{mask}]
        {x}[{at0}]
        {x}.index_fill({d}, {at}, 3)
        {x}.index_fill({d}, {at}, {scalar})
        {x}.index_add({d}, {at}, {x}.index_select({d}, {at}))
        {x}.index_add({d}, {at}, {x}.index_select({d}, {at}), alpha=0.5)
        {x}.index_copy({d}, {once}, {x}.index_select({d}, {once}) * 2)
        {x}.index_put(({at0},), {x}[{at0}] * 2, accumulate=True)
        {x}.index_put(({once0},), {x}[{once0}] * 2)
        {x}.index_put(({mask},), {scalar}.to({x}.dtype))
        {x}.scatter({d}, {wide}, 1)
        {x}.scatter({d}, {wide_once}, {same})
        {x}.scatter_add({d}, {wide}, {same})
        {x}.scatter_reduce({d}, {wide}, {same}, 'sum')
        {x}.scatter_reduce({d}, {wide}, {same}, 'mean', include_self={K})
        {x}.scatter_reduce({d}, {wide}, apart({same} + 0.003).to({x}.dtype), 'amax', include_self={K})
        {x}.scatter_reduce({d}, {wide}, apart({same} + 0.003).to({x}.dtype), 'amin')
        {x}.scatter_reduce({d}, {wide}, {same}, 'prod')
        {x}.masked_scatter({mask}, {x} * 2)
        {x}.put({places}, {x}.take({places}) * 2, accumulate=True)
        t.isin({x}, {at})
        """,
    ),
    "product": (
        5,
        """
        {x} @ {partner}
        t.matmul({x}, {partner})
        {x} @ {x}.mT
        {x}.mm({partner})
        {x}.mv({partner})
        {x}.dot({same})
        spread({x}, 2, 3, 2).bmm(spread({z}, 2, 2, 3))
        t.outer({x}.flatten(), {any}.flatten())
        t.inner({x}, {same})
        t.vdot({x}, {x})
        t.einsum('...i,...i->...', {x}, {x})
        t.einsum('i...->...i', {x})
        t.einsum('ij,kj->ik', {x}, {x})
        t.einsum('...ij,...kj', {x}, {same})
        t.einsum('bij,bjk,bkl->bil', spread({x}, 2, 3, 2), spread({z}, 2, 2, 3), spread({x}, 2, 3, 1))
        t.einsum('ii->i', spread({x}, 3, 3))
        t.tensordot({x}, {same}, 0)
        t.tensordot({x}, {x}, ([{d}], [{d}]))
        t.addmm({y}, spread({x}, 2, 3), spread({x}, 3, 2), beta=0.5, alpha=2)
        t.addmm(spread({z}, 2), spread({x}, 2, 3), spread({x}, 3, 2))
        t.addmv(spread({z}, 2), spread({x}, 2, 3), spread({x}, 3))
        t.addr(spread({z}, 2, 3), spread({x}, 2), spread({x}, 3))
        t.baddbmm(spread({z}, 2, 1, 3), spread({x}, 2, 2, 3), spread({x}, 2, 3, 3))
        t.addbmm(spread({z}, 2, 3), spread({x}, 2, 2, 3), spread({x}, 2, 3, 3))
        t.chain_matmul(spread({x}, 2, 3), spread({z}, 3, 2), spread({x}, 2, 2))
        t.linalg.multi_dot([spread({x}, 2, 3), spread({z}, 3, 2), spread({x}, 2)])
        t.linalg.vecdot({x}, {x})
        {x}.cov()
        t.corrcoef(spread({x}, 2, 4))
        """,
    ),
    "linalg": (
        3,
        """
        t.linalg.inv(solid({x}))
        t.linalg.det(solid({x}))
        t.linalg.slogdet(solid({x}))[1]
        t.logdet(solid({x}))
        t.linalg.cholesky(solid({x}) @ solid({x}).mT)
        t.linalg.qr(solid({x}))[1].abs()
        t.linalg.svdvals(solid({x}))
        t.linalg.svd(solid({x}), full_matrices=False)[0].abs()
        t.linalg.eigvalsh(solid({x}) @ solid({x}).mT)
        t.linalg.eigh(solid({x}) @ solid({x}).mT)[1].abs()
        t.linalg.solve(solid({x}), spread({z}, 3, 2))
        t.linalg.solve_triangular(solid({x}).triu(), spread({z}, 3, 2).double(), upper=True)
        t.linalg.lstsq(solid({x}), spread({z}, 3, 2))[0]
        t.linalg.pinv(spread({x}, 3, 2))
        t.linalg.matrix_exp(spread({x}, 2, 2).double())
        t.linalg.matrix_power(solid({x}), {k})
        t.linalg.matrix_norm(spread({x}, 2, 3, 2), {order_of_norm})
        t.linalg.norm(spread({x}, 3, 2), {order_of_norm})
        t.linalg.cond(solid({x}))
        t.linalg.lu_solve(*t.linalg.lu_factor(solid({x})), spread({z}, 3, 2))
        t.linalg.lu(solid({x}))[2]
        t.cholesky_solve(spread({z}, 3, 2), t.linalg.cholesky(solid({x}) @ solid({x}).mT))
        t.linalg.cross(spread({x}, 2, 3), spread({z}, 2, 3).flip(-1))
        t.linalg.tensorinv(solid({x}).reshape(3, 1, 3), ind=1)
        t.linalg.matrix_rank(solid({x}))
        """,
    ),
    "network": (
        8,
        """
        F.layer_norm({x}, ({last},))
        F.layer_norm(spread({x}, 2, 3), (3,), spread({z}, 3), spread({x}, 3), eps=0.1)
        F.rms_norm({x}, ({last},))
        F.group_norm(spread({x}, 2, 4, 3), 2, spread({z}, 4), spread({x}, 4))
        F.instance_norm(spread({x}, 2, 2, 3))
        F.local_response_norm(spread({x}, 1, 4, 3), 2)
        F.batch_norm(spread({x}, 4, 3).double(), running_mean, running_var, training=True, momentum=0.3)
        F.batch_norm(spread({x}, 2, 3, 2).double(), running_mean, running_var)
        F.batch_norm(spread({x}, 2, 3, 2), None, None, spread({x}, 3).sin(), spread({x}, 3), training=True)
        running_mean.clone() * {scalar}
        F.linear({x}, t.ones(2, {last}, dtype={x}.dtype))
        F.linear(spread({x}, 2, 3), spread({z}, 4, 3), spread({x}, 4))
        F.bilinear(spread({x}, 2, 3), spread({x}, 2, 2), spread({z}, 2, 3, 2))
        F.conv1d(spread({x}, 2, 2, 5), spread({z}, 3, 2, 2), spread({z}, 3), stride=2, padding=1)
        F.conv2d(spread({x}, 1, 2, 4, 4), spread({z}, 2, 2, 3, 2), padding=(1, 0))
        F.conv2d(spread({x}, 1, 4, 4, 3), spread({z}, 4, 2, 2, 2), dilation=2, padding='same', groups=2)
        F.conv_transpose2d(spread({x}, 1, 2, 2, 3), spread({z}, 2, 2, 2, 2), stride=2, output_padding=1)
        F.conv_transpose1d(spread({x}, 1, 2, 3), spread({z}, 2, 2, 2), spread({z}, 2), padding=1)
        F.conv3d(spread({x}, 1, 1, 2, 3, 3), spread({z}, 1, 1, 2, 2, 2))
        F.max_pool1d(apart(spread({x}, 1, 2, 5)), 2, padding=1)
        F.max_pool2d(apart(spread({x}, 1, 2, 5, 4)), 2, stride=1, dilation=2)
        F.max_pool2d(apart(spread({x}, 1, 1, 4, 5)), 3, 2, 1, ceil_mode=True)
        F.avg_pool1d(spread({x}, 1, 2, 5), 2)
        F.avg_pool2d(spread({x}, 1, 2, 5, 4), 2, stride=1, padding=1, count_include_pad={K})
        F.lp_pool2d(spread({x}, 1, 1, 4, 4).abs(), 3, 2)
        F.adaptive_avg_pool2d(spread({x}, 1, 2, 5, 4), (2, 3))
        F.adaptive_max_pool1d(apart(spread({x}, 1, 2, 5)), 2)
        F.interpolate(spread({x}, 1, 2, 3, 2), scale_factor=2)
        F.interpolate(spread({x}, 1, 2, 3, 2), size=(4, 5), mode='bilinear', align_corners={K})
        F.interpolate(spread({x}, 1, 2, 5), size=3, mode='linear')
        F.interpolate(spread({x}, 1, 2, 4, 4), size=(3, 6), mode='bicubic')
        F.unfold(spread({x}, 1, 2, 4, 3), 2)
        F.fold(spread({x}, 1, 8, 6), (4, 3), 2)
        F.grid_sample(spread({x}, 1, 2, 3, 3), spread({z}, 1, 2, 2, 2) * 0.7, align_corners={K})
        F.affine_grid(spread({x}, 1, 2, 3), (1, 1, 2, 3), align_corners={K})
        F.embedding(t.tensor([0, 1, 1]), {x})
        F.embedding(t.tensor([[0, 1], [1, 1]]), spread({x}, 3, 2), padding_idx=1)
        F.embedding_bag(t.tensor([0, 1, 1, 2]), spread({x}, 3, 2), t.tensor([0, 1]), mode='{bag}')
        F.one_hot({x}.long().abs(), 12)
        F.dropout({x}, 0.0)
        F.dropout({x}, 0.4, training=False)
        F.dropout2d(spread({x}, 1, 2, 2, 2), 0.0)
        F.alpha_dropout({x}, 0.0)
        F.scaled_dot_product_attention({x}, {x}, {x})
        F.scaled_dot_product_attention(spread({x}, 2, 3, 4), spread({z}, 2, 3, 4), spread({x}, 2, 3, 2), is_causal=True)
        F.scaled_dot_product_attention(spread({x}, 1, 2, 3), spread({z}, 1, 4, 3), spread({x}, 1, 4, 2), spread({x}, 4))
        F.cosine_similarity({x} * 1, {same} * 1, dim={d}) ?full
        F.pairwise_distance({x}, {same}, {p}) ?full
        checkpoint(lambda a: (a * a).sin(), {x})
        checkpoint(lambda a, b: a * b.double().exp(), {x}, {z})
        Cube.apply({x})
        Scaled.apply({x}, 3.0)
        Both.apply({x}, {z})[0]
        Both.apply({x}, {z})[1] * {x}
        """,
    ),
    "loss": (
        4,
        """
        F.mse_loss({x}, {same}, reduction='{r}')
        F.l1_loss({x}, {same}.detach(), reduction='{r}')
        F.smooth_l1_loss({x}, {same}, reduction='{r}', beta=0.5)
        F.huber_loss({x}, {same}, reduction='{r}', delta=0.3)
        F.kl_div(spread({x}, 2, 3).double().log_softmax(-1), spread({z}, 2, 3).double().softmax(-1), reduction='{r}')
        F.kl_div(spread({x}, 2, 3).double(), spread({x}, 2, 3).double() * 2, reduction='batchmean', log_target=True)
        F.binary_cross_entropy({x}.sigmoid(), {same}.sigmoid().detach(), reduction='{r}')
        F.binary_cross_entropy_with_logits({x}, {same}.sigmoid(), reduction='{r}')
        F.binary_cross_entropy_with_logits({x}, {same}.sigmoid(), {same}.abs(), pos_weight={same}.abs() + 0.5)
        F.cross_entropy(spread({x}, 3, 4), t.tensor([0, 3, 1]), reduction='{r}')
        F.cross_entropy(spread({x}, 3, 4), t.tensor([0, -100, 1]), spread({x}, 4).abs(), label_smoothing=0.2)
        F.cross_entropy(spread({x}, 2, 4, 3), spread({z}, 2, 4, 3).softmax(1), reduction='{r}')
        F.nll_loss(spread({x}, 3, 4).log_softmax(-1), t.tensor([0, 3, 1]), reduction='{r}')
        F.poisson_nll_loss({x}, {same}.detach().abs(), reduction='{r}', full=True)
        F.gaussian_nll_loss({x}, {same}, {same}.abs() + 0.5, reduction='{r}', full={K})
        F.hinge_embedding_loss({f}, {same}.detach().sign(), reduction='{r}')
        F.soft_margin_loss({x}, {same}.detach().sign(), reduction='{r}')
        F.margin_ranking_loss({x}, {z}, t.ones((), dtype={x}.dtype), margin=0.3, reduction='{r}')
        F.cosine_embedding_loss(spread({x}, 2, 3), spread({z}, 2, 3), t.tensor([1, -1]), reduction='{r}')
        F.triplet_margin_loss(spread({x}, 2, 3), spread({z}, 2, 3), spread({x}, 2, 3) * 2, reduction='{r}')
        F.multi_margin_loss(spread({x}, 2, 3), t.tensor([1, 2]), reduction='{r}')
        F.multilabel_margin_loss(spread({x}, 2, 3), t.tensor([[1, 2, -1], [0, -1, 1]]), reduction='{r}')
        F.multilabel_soft_margin_loss(spread({x}, 2, 3), spread({z}, 2, 3).sigmoid(), reduction='{r}')
        """,
    ),
    "in_place": (
        14,
        "\n".join(f"!{{x}}.{op}_()" for op in IN_PLACE)
        + "\n"
        + "\n".join(f"!{{x}}.{op}_({{y}})" for op in IN_PLACE_BINARY)
        + "\n"
        + "\n".join([f"!{{x}} {op}= {{y}}" for op in "+ - * / // % ** &".split()] * 2)
        + """
        !{x}.fill_({n})
        !{x}.fill_({n})
        !{x}.clamp_({n}, 1)
        !{x}.clamp_(min={z})
        !{x}.masked_fill_({mask}, 0.5)
        !{x}.masked_scatter_({mask}, {x} * 2)
        !{x}.index_fill_({d}, {at}, 2)
        !{x}.index_add_({d}, {at}, {x}.index_select({d}, {at}))
        !{x}.index_copy_({d}, {once}, {x}.index_select({d}, {once}) * 2)
        !{x}.index_put_(({once0},), {scalar}.to({x}.dtype))
        !{x}.scatter_({d}, {wide}, 1)
        !{x}.scatter_add_({d}, {wide}, {same})
        !{x}.put_({places}, {x}.take({places}) * 2, accumulate=True)
        !{x}.addcmul_({z}, {z}, value=0.5)
        !{x}.lerp_({z}, 0.4)
        !{x}.cumsum_({d})
        !{x}.renorm_({p}, {d}, 0.7) ?full
        !{x}.addmm_(spread({z}, 2, 3), spread({z}, 3, 3))
        !{x}.unsqueeze_({d})
        !{x}.squeeze_({d})
        !{x}.transpose_({d}, {e})
        !{x}.swapaxes_({d}, {e})
        !{x}.sub_({y}, alpha=2)
        !{x}.detach().mul_(2)
        !{x}.detach().logical_not_()
        !{x}.detach().lt_({y})
        !{x}.detach().logical_and_({z})
        !{x}[{i}].mul_(2)
        !{x}.t().add_(1)
        !{x}.view(-1)[:1].neg_()
        !{x}.unsqueeze(0).exp_()
        !{x}.diagonal().fill_(1)
        !{x}.select({d}, 0).copy_({any})
        !{x}.chunk(2, {d})[0].add_(1)
        !F.relu({x}, inplace=True)
        !F.elu({x}, inplace=True)
        !F.leaky_relu({x}, 0.1, inplace=True)
        !F.hardtanh({x}, -1, 1, inplace=True)
        !F.dropout({x}, 0.0, inplace=True)
        !Twice.apply({x})
        """,
    ),
    "assignment": (
        6,
        """
        !{x}[{j}] = {n}
        !{x}[{j}] = {any} ?float
        !{x}[{j}] = {x}[{j}] * 2
        !{x}[{j}] += {n}
        !{x}[{j}] *= {scalar} ?full
        !{x}[{mask}] = {n}
        !{x}[{mask}] = {scalar} ?float
        !{x}[{mask}] *= 2
        !{x}[{once0}] = {x}[{once0}] * 2
        !{x}[{once0}] = {n}
        !{x}[..., 0] = {any} ?float
        !{x}[:] = {any} ?float
        !{x}[:] = {any}.detach()
        !{x}[{j}] = {any}.detach()
        !{x}[...] = {y} ?float
        !{x}[None] = {any} ?float
        !{x}.data = {x}.detach() * 1
        """,
    ),
    "switching": (
        5,
        """
        !{x}.grad_fn, {x}.retain_grad()
        !{x}.grad_fn, {x}.retain_grad()
        !{x}.requires_grad_() ?unchanged
        !{x}.requires_grad_(False)
        !{x}.detach_()
        !{x}.grad_fn, {x}.register_hook(lambda g: log.append(float(g.double().sum()))) ?own
        !{x}.grad_fn, {x}.register_hook(lambda g: g * 2) ?own
        !{x}.grad_fn, {x}.register_hook(lambda g: None).remove() ?own
        !{x}.register_post_accumulate_grad_hook(lambda p: log.append(float(p.grad.double().sum())))
        !{x}.grad_fn.register_prehook(lambda gs: log.extend(numbers(g for g in gs if g is not None)))
        !{x}.grad_fn.register_prehook(lambda gs: tuple(None if g is None else g * 2 for g in gs))
        !{x}.grad_fn.register_hook(lambda ins, outs: log.append(1.0))
        !{x}.grad = None
        !{x}.grad.mul_(2)
        """,
    ),
    "modes": (
        4,
        """
        quiet(lambda: {x} * 2)
        quiet(lambda: {x}[...])
        quiet(lambda: {x}.t())
        quiet(lambda: {x}.chunk(2, {d})[0])
        quiet(lambda: loud(lambda: {x} * {y}))
        quiet(lambda: loud(lambda: {x}.view(-1)))
        !quiet(lambda: {x}.mul_(2))
        !quiet(lambda: {x}.add_({z}))
        !quiet(lambda: {x}.requires_grad_()) ?unchanged
        """,
    ),
    "passing": (
        5,
        """
        !{x}.sum().backward(retain_graph=True)
        !{x}.double().sum().backward()
        !{x}.backward(t.ones_like({x}), retain_graph=True)
        !({x}.double() ** 2).sum().backward(inputs=[{leaf}])
        !log.extend(numbers(t.autograd.grad({x}.sum(), {leaf}, retain_graph=True)))
        !log.extend(numbers(t.autograd.grad({x}.double().sum(), [{leaf}, v0], retain_graph=True, allow_unused=True)))
        t.autograd.grad({x}.double().sum(), {leaf}, create_graph=True)[0]
        t.autograd.grad(({x}.double() ** 2).sum(), {leaf}, create_graph=True)[0]
        t.autograd.grad({x}.double().sin().sum(), {leaf}, create_graph=True, allow_unused=True)[0] * 1
        t.autograd.grad({x}, {leaf}, grad_outputs={same}, create_graph=True)[0]
        """,
    ),
}

TEMPLATES = {
    kind: [line.strip() for line in text.strip().split("\n") if line.strip()] for kind, (_, text) in KINDS.items()
}
