"""The kernel of `langevin_step_`: every tensor and every chain in one launch.

A program takes tiles of TILE coordinates, and of each tile the chains one after another, w* staying in registers.
Where everything is in memory is written in `table` (int64): HEADER numbers of the launch, then FIELDS of each segment
(`langevin_table.py` writes it).

Health and sums are settled when all programs are done: each takes a ticket, and whoever draws the last one writes
`alive`, `death_step`, `metrics` and `thermostat`, so that no program sees a chain die halfway through its step.
"""

import triton
import triton.language as tl

from sltfast.triton_kernels.langevin_update import (
    add_to,
    bias_correction,
    metric_of,
    noise_scale,
    plain_increment,
    preconditioned_increment,
    prior_of,
    reciprocal,
    root,
)
from sltfast.triton_kernels.philox import (
    elements_in_order,
    normals_of_elements,
    normals_of_groups,
    word_of_elements,
    words_of_groups,
)
from sltfast.triton_kernels.rounding import load_values, pointer_to, store_low

# Numbers of the header: seed | stream | C | P | tiles | chains of a program | tickets | first cell of this launch |
# cells of a sum | α | eps | A; the last three are bits of float64.
_SEED, _STREAM, _CHAINS, _ROW = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
_TILES, _PER_PROGRAM, _TICKETS = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
_FIRST_CELL, _CELLS = tl.constexpr(7), tl.constexpr(8)
_ALPHA, _EPS, _FRICTION, _HEADER = tl.constexpr(9), tl.constexpr(10), tl.constexpr(11), tl.constexpr(12)
# Fields of a segment: those of the op's table | first tile | addresses (0: none) | may VECTOR be used.
_OFFSET, _NUMEL, _ELEMENT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_RUN, _STRIDE, _FIRST_TILE = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
_GRAD, _ANCHOR, _LOW = tl.constexpr(6), tl.constexpr(7), tl.constexpr(8)
_MASK, _NOISE, _ALIGNED, _FIELDS = tl.constexpr(9), tl.constexpr(10), tl.constexpr(11), tl.constexpr(12)
_SUMS = tl.constexpr(11)  # the nine of `metrics`, Σm², the coordinates that may move
_ROUNDING_STREAM = tl.constexpr(3)  # ops.STREAM_ROUNDING


@triton.jit
def _setting(table, at: tl.constexpr):
    return tl.load(table + at).to(tl.float64, bitcast=True)


@triton.jit
def _element_of(segment, i, numel):
    """Flat index in the full model of coordinates i of a segment."""
    run = tl.load(segment + _RUN)
    within = i
    if run < numel:
        within = (i // run) * tl.load(segment + _STRIDE) + i % run
    return tl.load(segment + _ELEMENT) + within


@triton.jit
def _given(segment, FIELD: tl.constexpr, i, numel, VECTOR: tl.constexpr):
    """Address of one of a segment's tensors, and which coordinates i it has: none if it is absent."""
    address = tl.load(segment + FIELD)
    given = i < tl.where(address != 0, numel, 0)
    if VECTOR:
        given = tl.max_constancy(given, [4])
    return address, given


@triton.jit
def _move_block(
    w,
    state,
    table,
    segment,
    start,
    numel,
    begin,
    end,
    hyper,
    step,
    chains,
    loss,
    alive,
    thermostat,
    sums,
    first,
    health,
    correction,
    RULE: tl.constexpr,
    MEASURED: tl.constexpr,
    GRAD_KIND: tl.constexpr,
    ANCHOR_KIND: tl.constexpr,
    LOW_KIND: tl.constexpr,
    NOISE_KIND: tl.constexpr,
    MASKED: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Coordinates start .. start + BLOCK − 1 of a segment, for chains begin .. end − 1.

    VECTOR: addresses, offsets and elements are multiples of four coordinates. What chains share is read before their
    loop: a compiler may not move a load past the stores in it.
    """
    T: tl.constexpr = w.dtype.element_ty
    i = start + tl.arange(0, BLOCK)
    inside = i < numel
    if VECTOR:
        inside = tl.max_constancy(inside, [4])
        element = _element_of(segment, start + 4 * tl.arange(0, BLOCK // 4), numel) >> 2  # of groups
    else:
        element = _element_of(segment, i, numel)
    address, given = _given(segment, _ANCHOR, i, numel, VECTOR)
    anchor = load_values(address, i, given, ANCHOR_KIND, VECTOR).to(T)
    plays = inside
    if MASKED:
        address, given = _given(segment, _MASK, i, numel, VECTOR)
        plays = inside & (tl.load(pointer_to(address, tl.uint8, VECTOR) + i, mask=given, other=1) != 0)
    grads, has_grad = _given(segment, _GRAD, i, numel, VECTOR)
    normals, has_normal = _given(segment, _NOISE, i, numel, VECTOR)
    low, has_low = _given(segment, _LOW, i, numel, VECTOR)
    offset, row = tl.load(segment + _OFFSET), tl.load(table + _ROW)
    cells, own_cell = tl.load(table + _CELLS), tl.load(table + _FIRST_CELL) + tl.program_id(0)
    alpha, eps, friction = _setting(table, _ALPHA), _setting(table, _EPS), _setting(table, _FRICTION)
    for c in range(begin, end):
        goes = c >= 0
        if alive is not None:
            goes = tl.load(alive + c) != 0
        if loss is not None:
            goes = goes & (tl.abs(tl.load(loss + c)) < float("inf"))
        if goes:
            own = hyper + 6 * c
            lr, n_beta, gamma, decay = tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 3)
            noise, box = noise_scale(lr, tl.load(own + 4), friction, RULE == "momentum"), tl.load(own + 5).to(T)
            # read here and not before the loop: the keys of Philox's rounds would wait in eighteen registers
            seed, stream, t, chain = (
                tl.load(table + _SEED),
                tl.load(table + _STREAM),
                tl.load(step),
                tl.load(chains + c),
            )
            before, own_before = c * row + offset, c * numel
            if VECTOR:
                before, own_before = tl.multiple_of(before, 4), tl.multiple_of(own_before, 4)
            old = tl.load(w + before + i, mask=inside, other=0.0)
            g = load_values(grads, own_before + i, has_grad, GRAD_KIND, VECTOR).to(T)
            if NOISE_KIND != "none":
                xi = load_values(normals, own_before + i, has_normal, NOISE_KIND, VECTOR).to(T)
            elif VECTOR:
                xi = normals_of_groups(seed, stream, t, chain, element).to(T)
            else:
                xi = normals_of_elements(seed, stream, t, chain, element).to(T)
            distance, weight = old - anchor, old
            if MASKED or MEASURED or RULE == "momentum":
                # zeroed, not only kept: a NaN gradient where nothing moves must not count
                g, xi = tl.where(plays, g, 0.0), tl.where(plays, xi, 0.0)
                distance, weight = tl.where(plays, distance, 0.0), tl.where(plays, old, 0.0)
            if RULE == "preconditioned":
                v = tl.load(state + before + i, mask=inside, other=1.0)
                mean = tl.fma(v, alpha.to(T), (1.0 - alpha).to(T) * (g * g))
                root_g = root(reciprocal(root(mean * correction.to(T)) + eps.to(T)))
                prior = prior_of(gamma, decay, weight, distance, T)
                moved = old + preconditioned_increment(lr, n_beta, noise, g, prior, xi, root_g, T)
                finite = (tl.abs(moved) < float("inf")) & (tl.abs(mean) < float("inf"))
                tl.store(state + before + i, tl.where(finite & plays, mean, v), mask=inside)
            else:
                move = plain_increment(lr, n_beta, gamma, decay, noise, g, weight, distance, xi, T)
                if RULE == "momentum":
                    lost = friction
                    if thermostat is not None:
                        lost = tl.load(thermostat + c)
                    m = tl.load(state + before + i, mask=inside, other=0.0)
                    move = tl.fma(tl.where(plays, m, 0.0), (1.0 - lost).to(T), move)
                moved = old + move
                finite = tl.abs(moved) < float("inf")
            if MEASURED or thermostat is not None:
                cell = sums + (c * cells + own_cell) * _SUMS
                if MEASURED:
                    sg, sd, sw, sx, sp = g, distance, weight, xi, prior_of(gamma, decay, weight, distance, T)
                    add_to(cell + 1, first, g * g)
                    add_to(cell + 5, first, distance * distance)
                    if RULE == "preconditioned":
                        # where nothing moves v may be 0, and G infinite
                        root_g = tl.where(plays, root_g, 0.0)
                        square = root_g * root_g
                        sg, sd, sw, sx, sp = square * g, square * distance, square * weight, root_g * xi, square * sp
                    add_to(cell, first, sg * sg)
                    add_to(cell + 2, first, sd * sd)
                    add_to(cell + 3, first, sw * sw)
                    add_to(cell + 4, first, sx * sx)
                    add_to(cell + 6, first, sg * sp)
                    add_to(cell + 7, first, sg * sx)
                    add_to(cell + 8, first, sp * sx)
                if thermostat is not None:
                    add_to(cell + 9, first, tl.where(plays, move * move, 0.0))
                    add_to(cell + 10, first, plays.to(tl.int32))
            held = tl.minimum(tl.maximum(moved, anchor - box), anchor + box)
            if RULE == "momentum":
                move = tl.where(held == moved, move, -move)
                tl.store(state + before + i, tl.where(finite & plays, move, m), mask=inside)
            new = tl.where(finite & plays, held, old)
            tl.store(w + before + i, new, mask=inside)
            if health is not None:
                # a flag for each place in a tile: a place of its own keeps the mask in its thread
                tl.store(health + c * TILE + tl.arange(0, BLOCK), 1, mask=plays & (finite == 0))
            if LOW_KIND != "none":
                random = None
                if STOCHASTIC:
                    if VECTOR:
                        x0, x1, x2, x3 = words_of_groups(seed, _ROUNDING_STREAM, t, chain, element)
                        random = elements_in_order(x0, x1, x2, x3)
                    else:
                        random = word_of_elements(seed, _ROUNDING_STREAM, t, chain, element)
                store_low(low, own_before + i, new.to(tl.float32), random, has_low, LOW_KIND, VECTOR)


@triton.jit
def langevin_kernel(
    w,
    state,
    table,
    tiles,
    hyper,
    step,
    chains,
    loss,
    alive,
    death_step,
    metrics,
    thermostat,
    sums,
    health,
    RULE: tl.constexpr,
    CORRECTED: tl.constexpr,
    GRAD_KIND: tl.constexpr,
    ANCHOR_KIND: tl.constexpr,
    LOW_KIND: tl.constexpr,
    NOISE_KIND: tl.constexpr,
    MASKED: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    TILE: tl.constexpr,
):
    """One launch. `tiles` (int32) names the segment of each tile; absent tensors are None.

    `health` (int32, zero between launches) holds TILE flags of each chain, of coordinates that broke, then a ticket
    counter for each group of chains; `sums` (float64 [C, cells, SUMS]) the sums of every program.
    """
    count, per_program = tl.load(table + _CHAINS), tl.load(table + _PER_PROGRAM)
    begin = tl.program_id(1).to(tl.int64) * per_program
    end = tl.minimum(begin + per_program, count)
    correction = tl.full((), 1.0, tl.float64)
    if CORRECTED:
        correction = bias_correction(_setting(table, _ALPHA), tl.load(step))
    for tile in range(tl.program_id(0), tl.load(table + _TILES), tl.num_programs(0)):
        segment = table + _HEADER + _FIELDS * tl.load(tiles + tile).to(tl.int64)
        start = (tile - tl.load(segment + _FIRST_TILE)) * TILE
        numel = tl.load(segment + _NUMEL)
        first = tl.where(tile == tl.program_id(0), 1, 0)
        if (tl.load(segment + _ALIGNED) != 0) & ((start + TILE <= numel) | (numel % 4 == 0)):
            _move_block(
                w, state, table, segment, start, numel, begin, end, hyper, step, chains, loss, alive, thermostat, sums,
                first, health, correction, RULE, metrics is not None, GRAD_KIND, ANCHOR_KIND, LOW_KIND, NOISE_KIND,
                MASKED, STOCHASTIC, True, TILE, TILE,
            )  # fmt: skip
        else:
            # one coordinate a thread, whose four normals then fit in few registers
            for part in range((tl.minimum(numel - start, TILE).to(tl.int32) + TILE // 4 - 1) // (TILE // 4)):
                _move_block(
                    w, state, table, segment, start + part * (TILE // 4), numel, begin, end, hyper, step, chains, loss,
                    alive, thermostat, sums, tl.where(part == 0, first, 0), health, correction, RULE,
                    metrics is not None, GRAD_KIND, ANCHOR_KIND, LOW_KIND, NOISE_KIND, MASKED, STOCHASTIC, False,
                    TILE // 4, TILE,
                )  # fmt: skip
    if health is not None:
        tl.debug_barrier()  # this program's stores come before its ticket
        tickets = health + count * TILE + tl.program_id(1)
        total = tl.load(table + _TICKETS)
        if tl.atomic_add(tickets, 1, sem="acq_rel", scope="gpu") == total - 1:
            tl.store(tickets, 0)
            for c in range(begin, end):
                _settle(
                    c, table, hyper, step, loss, alive, death_step, metrics, thermostat, sums, health,
                    RULE == "momentum", TILE,
                )  # fmt: skip


@triton.jit
def _settle(
    c, table, hyper, step, loss, alive, death_step, metrics, thermostat, sums, health, INERT: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """What chain c's step has come to. Reads past the first-level cache: other programs wrote these."""
    moves = c >= 0
    if alive is not None:
        moves = tl.load(alive + c) != 0
    goes = moves
    if loss is not None:
        goes = moves & (tl.abs(tl.load(loss + c)) < float("inf"))
    flags = health + c * TILE + tl.arange(0, TILE)
    finite = tl.max(tl.load(flags, cache_modifier=".cg")) == 0
    tl.store(flags, tl.zeros((TILE,), tl.int32))
    own = hyper + 6 * c
    lr = tl.load(own)
    cells = tl.load(table + _CELLS)
    rows = sums
    if metrics is not None:
        rows = sums + c * cells * _SUMS
        noise = noise_scale(lr, tl.load(own + 4), _setting(table, _FRICTION), INERT)
        for k in tl.static_range(9):
            value = metric_of(k, _total(rows + k, cells), own, noise)
            tl.store(metrics + 9 * c + k, tl.where(goes, value, float("nan")))
    if thermostat is not None:
        rows = sums + c * cells * _SUMS
        movable = _total(rows + 10, cells)
        zeta = tl.load(thermostat + c)
        heated = zeta + (_total(rows + 9, cells) / movable - lr / (2.0 - zeta))
        tl.store(thermostat + c, tl.where(goes & finite & (movable > 0), heated, zeta))
    died = moves & ((goes & finite) == 0)
    if died:
        if death_step is not None:
            tl.store(death_step + c, tl.load(step))
        if alive is not None:
            tl.store(alive + c, 0)


@triton.jit
def _total(cells, count):
    """Σ of one number of float64 cells, in an order that does not depend on which program came last."""
    sum = tl.zeros((256,), tl.float64)
    for start in range(0, count, 256):
        i = start + tl.arange(0, 256)
        sum += tl.load(cells + i * _SUMS, mask=i < count, other=0.0, cache_modifier=".cg")
    return tl.sum(sum)
