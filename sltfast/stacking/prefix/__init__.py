"""Prefix sharing: what lies below the first weight that moves runs once for all lanes, and once for a batch."""

from sltfast.stacking.prefix.expansion import Expansion as Expansion
from sltfast.stacking.prefix.finding import Finding as Finding
from sltfast.stacking.prefix.memo import Memo as Memo
from sltfast.stacking.prefix.trace import Outline as Outline
from sltfast.stacking.prefix.trace import outlined as outlined
