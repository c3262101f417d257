"""``sample`` and ``sample_single_chain``, where devinterp's TPU backend has them; the device is as given."""

from sltfast.compat.devinterp_v1.slt.sampling import sample
from sltfast.compat.devinterp_v1.slt.single_chain import sample_single_chain

__all__ = ["sample", "sample_single_chain"]
