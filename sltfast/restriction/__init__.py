"""Which coordinates move: the whole model, named parts of it, named parameters, or any boolean mask over them."""

from sltfast.restriction.anatomy import NotUnderstood as NotUnderstood
from sltfast.restriction.masks import create_param_masks as create_param_masks
from sltfast.restriction.masks import head_names as head_names
from sltfast.restriction.masks import restriction_names as restriction_names
from sltfast.restriction.preview import preview_weight_restriction as preview_weight_restriction
from sltfast.restriction.region import Rectangle as Rectangle
from sltfast.restriction.region import Region as Region
from sltfast.restriction.segment import Segment as Segment
from sltfast.restriction.selection import ParamMasks as ParamMasks
from sltfast.restriction.selection import Restriction as Restriction
