"""Which coordinates move: the whole model, named parts of it, named parameters, or any boolean mask over them."""

from sltfast.restriction.region import Rectangle as Rectangle
from sltfast.restriction.region import Region as Region
from sltfast.restriction.segment import Segment as Segment
from sltfast.restriction.selection import ParamMasks as ParamMasks
from sltfast.restriction.selection import Restriction as Restriction
