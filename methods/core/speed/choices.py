"""Every choice that is made for speed alone, in one object: turned off, the same result takes longer."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Choices:
    """What this process does for speed. Results agree within rounding, whichever are off (tests/core/test_choices.py).

    A choice of layout, compiler or optimiser is read where a network or an optimiser is made, the others where they
    act. No choices are: a precision, which is a setting of the method; sizes that keep work within memory, as of the
    teachers and of DP-MERF's embeddings; and what is the plainest form as well, as a skip before its doubling.

    Attributes:
        written_gradients: gradients of critics and classifiers written out, all images in one pass, the first layer on
            folded images; off: traced by autograd, network by network.
        folded_signals: signals written out below a narrow kernel of many places as a convolution to folded maps, on a
            processor.
        patches: the written out gradient of a wide kernel as a product of patches, on a processor; likewise that of
            scattering features by their images.
        stacks: networks of several shards work together in each layer; off: one after the other.
        threads: stacks, of shards' networks or of teachers, side by side, one on each processor thread.
        fakes_at_once: one generator pass makes the fakes of all critic updates of a step.
        folded_upsampling: a 3x3 convolution after nearest doubling as a 4x4 transposed convolution, in fp32.
        by_places: transposed convolutions to few channels as one convolution for the four places of their stride, and
            their biases' gradients as products, on a processor.
        separable_doubling: bilinear doubling and the convolution after it as matrix products.
        written_pixel_norm: pixel norm with a backward pass of its own.
        channels_last: layout of the sharded GAN's generators.
        map_parts: images without a graph are generated part by part, of maps that the allocator keeps.
        fused_adam: Adam in one pass over each tensor.
        one_backward_pass: DP-SGD's norms and clipped sum from one backward pass; off: a backward pass an example.
        row_chunks: rows of DP-SGD pass in chunks that suit a processor's cache; off: all at once.
        remembered_features: scattering features of records are kept in memory, on a processor; off: made at each read.
        pinned_copies: values go to a GPU from memory that cannot be paged out, behind what it still has to do.
        batched_teachers: convolutional teachers as batched matrix products on patches; off: vmap'd convolutions.
        keep_freed: the C library keeps freed memory; read once, when a command of `methods` starts.
        compiled: the sharded GAN's generators compiled by torch; off by default, see `speed.compiled`.
        cuda_graphs: the same, replayed as CUDA graphs; off by default.
    """

    written_gradients: bool = True
    folded_signals: bool = True
    patches: bool = True
    stacks: bool = True
    threads: bool = True
    fakes_at_once: bool = True
    folded_upsampling: bool = True
    by_places: bool = True
    separable_doubling: bool = True
    written_pixel_norm: bool = True
    channels_last: bool = True
    map_parts: bool = True
    fused_adam: bool = True
    one_backward_pass: bool = True
    row_chunks: bool = True
    remembered_features: bool = True
    pinned_copies: bool = True
    batched_teachers: bool = True
    keep_freed: bool = True
    compiled: bool = False
    cuda_graphs: bool = False

    @contextlib.contextmanager
    def changed(self, **changes: bool) -> Iterator[Choices]:
        """Changes some choices for a block, in all threads, and restores them after. Raises TypeError for another."""
        before = dataclasses.replace(self)
        after = dataclasses.replace(self, **changes)
        try:
            vars(self).update(vars(after))
            yield self
        finally:
            vars(self).update(vars(before))

    def all_off(self) -> contextlib.AbstractContextManager[Choices]:
        """Turns every choice off for a block."""
        return self.changed(**dict.fromkeys(vars(self), False))


CHOICES = Choices()
